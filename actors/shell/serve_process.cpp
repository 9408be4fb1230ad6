#include "actors/shell/serve_process.hpp"

#include "actors/data/etcd_lease.hpp"
#include "actors/data/model_lender.hpp"
#include "actors/data/serving_shape.hpp"
#include "actors/shell/child_process.hpp"
#include "actors/shell/fabric_gate.hpp"
#include "actors/shell/front_end.hpp"
#include "actors/shell/runtime.hpp"
#include "compute/model_digest.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>

namespace hexgen::actors {
namespace {

/// What the model file decides: sizes, limits, identity.
void take_model(serve_process_options& o, const compute::model_file& model) {
  auto& c = o.coordinator;
  const int context = model.config().context > 0 ? model.config().context : 2048;
  const int longest = o.max_sequence > 0 ? std::min(o.max_sequence, context) : context;
  c.settings.max_sequence = static_cast<std::uint32_t>(longest);
  c.model = {o.model_name, o.model_path, model.total_bytes(),
             compute::to_hex(compute::model_digest(model))};
  compute::executor_options e;
  e.kernels = kernels_of(c.settings.kernels);
  e.kv = kv_type_of(c.settings.kv_type);
  e.max_step_tokens = static_cast<int>(c.settings.max_step_tokens);
  c.shape = serving_shape(model, e);
  c.goal.kv_tokens = std::min(o.kv_tokens, longest);
  if (c.settings.stage_recovery) // what a stage keeps of its activations beside its KV
    c.shape.activation_bytes += sizeof(float) * static_cast<std::uint64_t>(c.goal.kv_tokens) *
                                static_cast<std::uint64_t>(model.config().hidden);
}

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

transport::http_peer etcd_of(const serve_process_options& o) {
  try {
    return transport::http_peer::of(o.etcd, o.etcd_files);
  } catch (const std::runtime_error& e) {
    throw std::runtime_error(std::string("--etcd: ") + e.what());
  }
}

/// Until this process may be the coordinator; false: a signal came first.
bool wait_for_turn(etcd_lease& lease, stop_signal& stop, const event_log& log) {
  std::string told;
  do {
    std::string who;
    try {
      who = lease.acquire();
      if (who.empty()) {
        log("event=lease_acquired");
        return true;
      }
      who = "standing by for " + who;
    } catch (const std::runtime_error& e) {
      who = std::string("standing by: ") + e.what();
    }
    if (who != told)
      say(who);
    told = std::move(who);
  } while (!stop.wait_for(std::chrono::milliseconds(300)));
  return false;
}

} // namespace

int run_serve(serve_process_options o, stop_signal& stop) {
  const event_log log(o.fabric.name);
  const auto file = compute::open_model(o.model_path);
  take_model(o, *file);
  const auto model =
      open_served_model(o.model_path, o.model_name,
                        static_cast<int>(o.coordinator.settings.max_sequence), o.chat_template);
  std::optional<etcd_lease> lease; // ends last: nobody takes over from who still speaks
  if (!o.etcd.empty()) {
    const auto own = transport::format_address(o.fabric.listen_host,
                                               static_cast<std::uint16_t>(o.fabric.listen_port));
    lease.emplace(etcd_of(o), o.etcd_key, own);
    if (!wait_for_turn(*lease, stop, log))
      return 0;
  }
  fabric_gate gate;
  const auto fabric = transport::make_fabric(o.fabric, gate);
  fabric->start();
  model_lender lender(*fabric, file, o.model_path, o.coordinator.model.digest);
  o.coordinator.incarnation = fabric->incarnation();
  board shown;
  {
    runtime system;
    front_end_options front;
    front.http = o.http;
    front.api.api_key = o.fabric.api_key;
    front.api.aliases = o.model_aliases;
    front.api.model_root = o.model_path;
    front.api.log = [log](const std::string& line) { log("event=api " + line); };
    front.incarnation = fabric->incarnation();
    front.shutdown_timeout = o.shutdown_timeout;
    front.recovery_wait = o.recovery_wait;
    front.journal = o.journal;
    front_end gateway(system.actors(), *fabric, shown, log, front, model);
    auto planner = spawn_planner(system.actors());
    auto coordinator = spawn_coordinator(
        system.actors(), {*fabric, shown, log, planner, gateway.router()}, o.coordinator);
    gate.open([&](fabric_event e) {
      if (e.what == fabric_event::kind::frame && e.frame->type == proto::MODEL_FETCH) {
        if (e.peer.role == transport::peer_role::node)
          lender.on_fetch(e.peer.id, std::move(e.frame));
        return;
      }
      if (!gateway.on_event(e))
        caf::anon_send(coordinator, std::move(e));
    });
    say("hexgen serves " + o.model_name +
        (o.http.tls_certificate_file.empty() ? ": http://" : ": https://") + o.http.host + ":" +
        std::to_string(gateway.http_port()) + "/v1, fabric " + fabric->address());
    {
      if (!o.child.empty())
        o.child.insert(o.child.begin() + 2, fabric->address());
      child_process child(o.child, o.child_environment, log);
      std::string told;
      while (!stop.wait_for(std::chrono::milliseconds(100))) {
        if (lease && lease->lost()) {
          // Another may be the coordinator by now: not a word more, to nobody.
          log("event=lease_lost");
          std::_Exit(1);
        }
        if (!o.child.empty())
          child.poll();
        if (auto now = shown.not_ready(); now != told) {
          say(now.empty() ? "ready" : "waiting: " + now);
          told = std::move(now);
        }
      }
      gateway.drain(stop);
    }
    gate.close();
    caf::anon_send_exit(coordinator, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(planner, caf::exit_reason::user_shutdown);
    coordinator = coordinator_actor{};
    planner = planner_actor{};
    gateway.close();
  }
  fabric->stop();
  log("event=stopped");
  return 0;
}

} // namespace hexgen::actors
