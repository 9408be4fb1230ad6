#include "actors/shell/gateway_process.hpp"

#include "actors/core/coordinator_addresses.hpp"
#include "actors/core/coordinator_state.hpp"
#include "actors/data/model_borrower.hpp"
#include "actors/shell/clock.hpp"
#include "actors/shell/fabric_gate.hpp"
#include "actors/shell/front_end.hpp"
#include "actors/shell/runtime.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <condition_variable>
#include <cstdio>

namespace hexgen::actors {
namespace {

/// The connection to the coordinator: says hello, keeps the last table, asks for the status.
class coordinator_link {
public:
  coordinator_link(const gateway_process_options& options, event_log log)
      : options_(options), log_(log), addresses_(options.coordinator) {}

  void begin(transport::fabric& fabric) {
    fabric_ = &fabric;
    fabric.dial(addresses_.now());
  }

  /// Transport thread.
  void on_event(const fabric_event& e, board& shown) {
    if (e.what == fabric_event::kind::up && e.peer.name == coordinator_name) {
      proto::gateway_hello m;
      m.set_name(options_.fabric.name);
      m.set_incarnation(fabric_->incarnation());
      fabric_->send(e.peer.id,
                    {transport::traffic::control, proto::GATEWAY_HELLO, m.SerializeAsString(), {}});
      const std::lock_guard guard(mutex_);
      peer_ = e.peer.id;
      failures_ = 0;
    } else if (e.what == fabric_event::kind::down && e.peer.name == coordinator_name) {
      log_("event=coordinator_lost why=\"" + e.text + "\"");
      redial(false);
    } else if (e.what == fabric_event::kind::dial_failed && e.address == address()) {
      redial(true);
    } else if (e.what == fabric_event::kind::frame && e.peer.name == coordinator_name) {
      if (e.frame->type == proto::STATUS_REPLY) {
        proto::status_reply m;
        if (m.ParseFromString(e.frame->head))
          shown.set_cluster(m.json());
      } else if (e.frame->type == proto::ROUTING_TABLE) {
        take_table(e.frame->head);
      } else if (e.frame->type == proto::MODEL_PIECE) {
        const std::lock_guard guard(mutex_);
        if (borrower_)
          borrower_->on_piece(model_borrower::source, e.frame);
      }
    }
  }

  /// The first table, which names the model.
  std::optional<wire::routing_table> wait_for_table(stop_signal& stop) {
    while (!stop.wait_for(std::chrono::milliseconds(50))) {
      const std::lock_guard guard(mutex_);
      if (table_)
        return table_;
    }
    return std::nullopt;
  }

  void ask_status() {
    proto::status_request m;
    m.set_id(++asked_);
    send({transport::traffic::control, proto::STATUS_REQUEST, m.SerializeAsString(), {}});
  }

  /// The path of what a gateway reads of the model, which is not its weights.
  std::filesystem::path fetch(const wire::model_reference& model) {
    const auto borrower = std::make_shared<model_borrower>(
        model.digest, fetched_models(),
        [this](transport::peer_id, transport::frame f) { return send(std::move(f)); });
    {
      const std::lock_guard guard(mutex_);
      borrower_ = borrower;
    }
    return borrower->open();
  }

private:
  bool send(transport::frame f) {
    transport::peer_id peer = 0;
    {
      const std::lock_guard guard(mutex_);
      peer = peer_;
    }
    return peer != 0 && fabric_->send(peer, std::move(f)) == transport::send_result::accepted;
  }
  std::string address() {
    const std::lock_guard guard(mutex_);
    return addresses_.now();
  }
  void redial(bool elsewhere) {
    const std::lock_guard guard(mutex_);
    peer_ = 0;
    if (elsewhere)
      addresses_.turn();
    const auto wait = std::min(2000U, 100U << std::min(failures_++, 5U));
    fabric_->post([this] { fabric_->dial(address()); },
                  wait / 2 + static_cast<std::uint32_t>(now_us() % (wait / 2)));
  }
  void take_table(const std::string& head) {
    try {
      auto table = wire::decode_routing_table(head);
      const std::lock_guard guard(mutex_);
      table_ = std::move(table);
    } catch (const wire::wire_error& e) {
      log_(std::string("event=bad_message why=\"") + e.what() + "\"");
    }
  }

  const gateway_process_options& options_;
  event_log log_;
  transport::fabric* fabric_ = nullptr;
  std::mutex mutex_;
  coordinator_addresses addresses_;
  transport::peer_id peer_ = 0;
  unsigned failures_ = 0;
  std::optional<wire::routing_table> table_;
  std::shared_ptr<model_borrower> borrower_; // null: this machine has the model
  std::uint64_t asked_ = 0;
};

} // namespace

int run_gateway(const gateway_process_options& o, stop_signal& stop) {
  const event_log log(o.fabric.name);
  fabric_gate gate;
  board shown;
  coordinator_link link(o, log);
  std::mutex early_mutex;
  std::vector<fabric_event> early; // what the router must see once it is there
  std::optional<front_end> front;
  const auto fabric = transport::make_fabric(o.fabric, gate);
  fabric->start();
  gate.open([&](fabric_event e) {
    link.on_event(e, shown);
    const std::lock_guard guard(early_mutex);
    if (front)
      front->on_event(e);
    else if (early.size() < 4096)
      early.push_back(std::move(e));
  });
  link.begin(*fabric);
  int code = 0;
  if (const auto table = link.wait_for_table(stop)) {
    auto path = own_model_path(table->model, o.model_path);
    if (path.empty())
      path = link.fetch(table->model);
    const auto model =
        open_served_model(path.string(), table->model.name,
                          static_cast<int>(table->settings.max_sequence), o.chat_template);
    runtime system;
    front_end_options f;
    f.http = o.http;
    f.api.api_key = o.fabric.api_key;
    f.api.aliases = o.model_aliases;
    f.api.model_root = path.string();
    f.api.log = [log](const std::string& line) { log("event=api " + line); };
    f.incarnation = fabric->incarnation();
    f.shutdown_timeout = o.shutdown_timeout;
    f.recovery_wait = o.recovery_wait;
    f.journal = o.journal;
    {
      const std::lock_guard guard(early_mutex);
      front.emplace(system.actors(), *fabric, shown, log, f, model);
      for (const auto& e : early)
        front->on_event(e);
      early.clear();
    }
    std::printf("hexgen gateway for %s: http://%s:%u/v1\n", table->model.name.c_str(),
                o.http.host.c_str(), front->http_port());
    std::fflush(stdout);
    int rounds = 0;
    while (!stop.wait_for(std::chrono::milliseconds(100)))
      if (rounds++ % 5 == 0)
        link.ask_status();
    front->drain(stop);
    gate.close();
    front->close();
    front.reset();
  }
  gate.close();
  fabric->stop();
  return code;
}

} // namespace hexgen::actors
