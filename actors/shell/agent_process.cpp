#include "actors/shell/agent_process.hpp"

#include "actors/core/coordinator_state.hpp"
#include "actors/data/model_borrower.hpp"
#include "actors/data/model_lender.hpp"
#include "actors/data/node_links.hpp"
#include "actors/shell/clock.hpp"
#include "actors/shell/fabric_gate.hpp"
#include "actors/shell/process_restart.hpp"
#include "actors/shell/runtime.hpp"
#include "actors/shell/spawn.hpp"
#include "compute/model_catalog.hpp"
#include "compute/model_digest.hpp"
#include "transport/proto/hexgen.pb.h"

#include <atomic>
#include <filesystem>
#include <set>
#include <thread>

namespace hexgen::actors {
namespace {

/// The served model as this machine has it. Written once, by the opening thread, before the agent
/// hears of it.
struct opened_model {
  std::mutex mutex;
  std::shared_ptr<const compute::model_file> file;
  std::shared_ptr<const compute::tokenizer> tokens;
  std::shared_ptr<model_borrower> borrower; // null: the machine has the whole model
  std::shared_ptr<model_lender> lender;     // to the other agents; null: not open yet
  std::set<transport::peer_id> neighbours;  // agents that are connected
};

/// One life of an agent: from one incarnation to the next.
class agent_life {
public:
  explicit agent_life(const agent_process_options& options)
      : options_(options), log_(options.fabric.name), links_(options.fabric.name),
        fabric_(transport::make_fabric(options.fabric, gate_)), replicas_(*fabric_) {}

  /// Returns the exit code, or -1: once more.
  int run(stop_signal& stop) {
    for (const auto& d : options_.devices)
      workers_.push_back(make_device_worker(
          d, links_,
          {[this](std::uint64_t replica, std::uint64_t generation, std::string why) {
             device_event e;
             e.what = device_event::kind::failed;
             e.id = {replica, generation};
             e.error = std::move(why);
             tell(std::move(e));
           },
           [this](const std::string& why) {
             log_("event=device_lost why=\"" + why + "\"");
             const std::lock_guard guard(mutex_);
             lost_ = why;
             left_ = true;
           }}));
    links_.attach(*fabric_, [this](std::shared_ptr<const transport::frame> f) {
      data_frame(0, std::move(f));
    });
    fabric_->start();
    agent_options agent;
    agent.name = options_.fabric.name;
    agent.incarnation = fabric_->incarnation();
    agent.coordinator = options_.coordinator;
    agent.address = fabric_->address();
    agent.zone = options_.fabric.zone;
    agent.price_per_hour = options_.price_per_hour;
    agent.devices = options_.devices;
    agent.descriptions = options_.descriptions;
    agent.restarted_because = restart_reason();
    log_("event=agent_started address=" + agent.address);
    {
      runtime system;
      {
        const auto handle = spawn_agent(system.actors(), parts(), std::move(agent));
        {
          const std::lock_guard guard(mutex_);
          agent_ = handle;
        }
        gate_.open([this](fabric_event e) { event(std::move(e)); });
        while (!left() && !stop.wait_for(std::chrono::milliseconds(50))) {
        }
        gate_.close();
        stop_fetching();
        if (opener_.joinable())
          opener_.join();
        caf::anon_send_exit(handle, caf::exit_reason::user_shutdown);
        for (auto& r : replicas_.clear())
          caf::anon_send(r, caf::close_atom_v, std::string("the node is leaving"));
      }
      const std::lock_guard guard(mutex_);
      agent_ = agent_actor{};
    }
    for (auto& w : workers_)
      w.reset();
    fabric_->stop();
    const std::lock_guard guard(mutex_);
    if (stop.seen())
      return 0;
    if (!lost_.empty())
      restart_process(lost_);
    return again_ ? -1 : 1;
  }

private:
  agent_parts parts() {
    agent_parts p{*fabric_, links_, replicas_, workers_, log_, {}, {}, {}, {}, {}, {}};
    p.open_model = [this](const wire::model_reference& m, agent_actor to) {
      // A thread of its own: a slow disk must not stop the heart.
      opener_ = std::thread([this, m, to = std::move(to)] {
        device_event e;
        e.what = device_event::kind::opened;
        try {
          open_model(m);
        } catch (const std::exception& error) {
          e.error = error.what();
        }
        caf::anon_send(to, std::move(e));
      });
    };
    p.config = [this] {
      const std::lock_guard guard(model_.mutex);
      return model_.file->config();
    };
    p.model = [this] {
      const std::lock_guard guard(model_.mutex);
      return model_.file;
    };
    p.weights = [this](const compute::shard& part, const compute::byte_progress& tell) {
      std::shared_ptr<const compute::model_file> file;
      std::shared_ptr<model_borrower> borrower;
      {
        const std::lock_guard guard(model_.mutex);
        file = model_.file;
        borrower = model_.borrower;
      }
      if (borrower) {
        const auto before = borrower->came_from();
        borrower->bring(*file, part,
                        [&tell, log = progress()](std::uint64_t done, std::uint64_t total) {
                          tell(done, total);
                          log(done, total);
                        });
        const auto after = borrower->came_from();
        if (after.source + after.others > before.source + before.others)
          log_("event=fetched from_coordinator_bytes=" +
               std::to_string(after.source - before.source) +
               " from_agents_bytes=" + std::to_string(after.others - before.others));
      }
      return file;
    };
    p.tokens = [this] {
      const std::lock_guard guard(model_.mutex);
      return model_.tokens;
    };
    p.leave = [this](const std::string& why, bool again, bool process) {
      log_("event=leaving again=" + std::to_string(again ? 1 : 0) +
           " new_process=" + std::to_string(process ? 1 : 0) + " why=\"" + why + "\"");
      if (process)
        restart_process(why); // its threads cannot be waited for
      const std::lock_guard guard(mutex_);
      left_ = true;
      again_ = again;
    };
    return p;
  }

  void open_model(const wire::model_reference& served) {
    auto path = own_model_path(served, options_.model_path);
    std::shared_ptr<model_borrower> borrower;
    if (path.empty()) {
      log_("event=model_not_here source=" + served.source + " fetching_from=" + coordinator_name);
      borrower = std::make_shared<model_borrower>(
          served.digest, fetched_models(),
          [this](transport::peer_id to, transport::frame f) {
            if (to == model_borrower::source)
              to = coordinator_;
            return to != 0 && fabric_->send(to, std::move(f)) == transport::send_result::accepted;
          },
          [this] {
            const std::lock_guard guard(model_.mutex);
            return std::vector<transport::peer_id>(model_.neighbours.begin(),
                                                   model_.neighbours.end());
          });
      {
        const std::lock_guard guard(model_.mutex);
        model_.borrower = borrower; // from here on pieces find it
      }
      path = borrower->open();
    }
    auto file = compute::open_model(path);
    if (compute::to_hex(compute::model_digest(*file)) != served.digest)
      throw std::runtime_error(path.string() + " is not the model that the cluster serves (" +
                               served.name + ")");
    auto tokens = compute::open_tokenizer(path);
    model_lender::shelf holds;
    if (borrower)
      holds = [borrower](const compute::file_range& r) { return borrower->holds(r); };
    auto lender = std::make_shared<model_lender>(*fabric_, file, path, served.digest, holds);
    const std::lock_guard guard(model_.mutex);
    model_.lender = std::move(lender);
    model_.file = std::move(file);
    model_.tokens = std::move(tokens);
  }

  /// Log lines, one a second at most.
  [[nodiscard]] compute::byte_progress progress() const {
    return [this, told = std::chrono::steady_clock::now()](std::uint64_t done,
                                                           std::uint64_t total) mutable {
      const auto now = std::chrono::steady_clock::now();
      if (done != total && now - told < std::chrono::seconds(1))
        return;
      told = now;
      log_("event=fetching done_bytes=" + std::to_string(done) +
           " total_bytes=" + std::to_string(total));
    };
  }

  void stop_fetching() {
    std::shared_ptr<model_lender> lender; // its thread's end is waited for outside the lock
    const std::lock_guard guard(model_.mutex);
    if (model_.borrower)
      model_.borrower->close();
    lender.swap(model_.lender);
  }

  [[nodiscard]] bool left() const {
    const std::lock_guard guard(mutex_);
    return left_;
  }

  template <class Message>
  void tell(Message m) {
    agent_actor to;
    {
      const std::lock_guard guard(mutex_);
      to = agent_;
    }
    if (to)
      caf::anon_send(to, std::move(m));
  }

  // Activations do not pass mailboxes: straight to the device's queue.
  void data_frame(transport::peer_id from, std::shared_ptr<const transport::frame> f) {
    if (f->type == proto::STEP_RESULT) {
      replicas_.on_frame(from, *f);
      return;
    }
    for (const auto& w : workers_)
      if (w->on_frame(f))
        return;
    ++refused_;
  }

  void event(fabric_event e) {
    switch (e.what) {
    case fabric_event::kind::up:
      links_.up(e.peer);
      if (e.peer.role == transport::peer_role::node) {
        if (e.peer.name == coordinator_name) {
          coordinator_ = e.peer.id;
        } else {
          const std::lock_guard guard(model_.mutex);
          model_.neighbours.insert(e.peer.id);
        }
      }
      break;
    case fabric_event::kind::down:
      links_.down(e.peer);
      if (e.peer.id == coordinator_)
        coordinator_ = 0;
      {
        const std::lock_guard guard(model_.mutex);
        model_.neighbours.erase(e.peer.id);
      }
      replicas_.peer_lost(e.peer.id);
      break;
    case fabric_event::kind::dial_failed:
      break;
    case fabric_event::kind::frame:
      if (e.peer.role != transport::peer_role::node)
        return; // an agent has nothing for clients
      switch (e.frame->type) {
      case proto::STEP:
      case proto::RANK_STEP:
      case proto::COLLECTIVE:
      case proto::STEP_RESULT:
        data_frame(e.peer.id, std::move(e.frame));
        return;
      case proto::SUBMIT:
      case proto::CANCEL:
        replicas_.on_frame(e.peer.id, *e.frame);
        return;
      case proto::PROBE:
        answer_probe(e);
        return;
      case proto::MODEL_PIECE: {
        const std::lock_guard guard(model_.mutex);
        if (model_.borrower)
          model_.borrower->on_piece(e.peer.id == coordinator_ ? model_borrower::source : e.peer.id,
                                    std::move(e.frame));
        return;
      }
      case proto::MODEL_FETCH: {
        std::shared_ptr<model_lender> lender;
        {
          const std::lock_guard guard(model_.mutex);
          lender = model_.lender;
        }
        // Who does not lend is asked no more, and silence would be waited for.
        if (lender)
          lender->on_fetch(e.peer.id, std::move(e.frame));
        else
          refuse_to_lend(e);
        return;
      }
      default:
        break;
      }
    }
    tell(std::move(e));
  }

  void refuse_to_lend(const fabric_event& e) {
    proto::model_fetch asked;
    proto::model_piece piece;
    if (!asked.ParseFromString(e.frame->head))
      return;
    piece.set_id(asked.id());
    piece.set_error("the model is not open here");
    fabric_->send(e.peer.id,
                  {transport::traffic::bulk, proto::MODEL_PIECE, piece.SerializeAsString(), {}});
  }

  // On the transport thread, so that a probe measures the link and no mailbox.
  void answer_probe(const fabric_event& e) {
    proto::probe m;
    if (!m.ParseFromString(e.frame->head))
      return;
    proto::probe_reply reply;
    reply.set_id(m.id());
    fabric_->send(e.peer.id,
                  {transport::traffic::control, proto::PROBE_REPLY, reply.SerializeAsString(), {}});
  }

  const agent_process_options& options_;
  event_log log_;
  fabric_gate gate_;
  node_links links_;
  std::unique_ptr<transport::fabric> fabric_;
  replica_host replicas_;
  std::vector<std::unique_ptr<device_worker>> workers_;
  opened_model model_;
  std::thread opener_;
  std::atomic<transport::peer_id> coordinator_{0}; // 0: not connected
  mutable std::mutex mutex_;
  agent_actor agent_;
  bool left_ = false, again_ = false;
  std::string lost_; // why a device is
  std::atomic<std::uint64_t> refused_{0};
};

} // namespace

int run_agent(const agent_process_options& options, stop_signal& stop) {
  for (;;) {
    agent_life life(options);
    const int code = life.run(stop);
    if (code >= 0)
      return code;
    if (stop.wait_for(std::chrono::milliseconds(200)))
      return 0;
  }
}

} // namespace hexgen::actors
