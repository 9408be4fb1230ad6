#include "actors/shell/clock.hpp"
#include "actors/shell/spawn.hpp"
#include "transport/proto/hexgen.pb.h"

namespace hexgen::actors {
namespace {

constexpr auto tick_every = std::chrono::milliseconds(25);

class agent_shell {
public:
  static inline const char* name = "node_agent";

  explicit agent_shell(agent_actor::pointer self)
      : self_(self),
        ballast_(transport::buffer::copy_of(std::vector<std::byte>(link_prober::ballast_bytes))) {}

  void begin(agent_parts parts, agent_options options) {
    node_ = options.name;
    parts_ = std::make_unique<agent_parts>(std::move(parts));
    state_ = std::make_unique<agent_state>(std::move(options));
    carry_out(state_->start(now_us()));
    tick();
  }

  void event(const fabric_event& e) {
    switch (e.what) {
    case fabric_event::kind::up:
      carry_out(state_->peer_up(e.peer, now_us()));
      break;
    case fabric_event::kind::down:
      carry_out(state_->peer_down(e.peer, e.text, now_us()));
      break;
    case fabric_event::kind::dial_failed:
      carry_out(state_->dial_failed(e.address, e.text, now_us()));
      break;
    case fabric_event::kind::frame:
      // A probe's time is the transport thread's: this mailbox is no part of the link.
      carry_out(state_->on_frame(e.peer, *e.frame,
                                 e.frame->type == proto::PROBE_REPLY ? e.at_us : now_us()));
      break;
    }
  }

  void device(const device_event& e) {
    using kind = device_event::kind;
    switch (e.what) {
    case kind::opened:
      carry_out(state_->model_opened(
          e.error, e.error.empty() ? parts_->config() : compute::model_config{}, now_us()));
      break;
    case kind::measured:
      carry_out(state_->device_measured(e.device, e.rates, now_us()));
      if (e.device + 1 < measuring_.end)
        measure(e.device + 1);
      break;
    case kind::prepared:
      carry_out(state_->rank_prepared(e.device, e.id, e.prepared));
      break;
    case kind::committed:
      carry_out(state_->rank_committed(e.device, e.id, e.error));
      break;
    case kind::released:
      carry_out(state_->rank_released(e.device, e.id));
      break;
    case kind::failed:
      carry_out(state_->rank_failed(e.id, e.error));
      break;
    }
  }

  void replica(const replica_event& e) {
    switch (e.what) {
    case replica_event::kind::drained:
      carry_out(state_->replica_drained(e.id));
      break;
    case replica_event::kind::broken:
      carry_out(state_->rank_failed(e.id, e.why));
      break;
    case replica_event::kind::status:
      carry_out(state_->replica_status(e.status));
      break;
    }
  }

  void tick() {
    std::vector<rank_progress> progress;
    for (const auto& w : parts_->workers) {
      auto more = w->progress();
      progress.insert(progress.end(), more.begin(), more.end());
    }
    state_->relayed(parts_->fabric.relayed_bytes());
    carry_out(state_->tick(progress, now_us()));
    self_->delayed_send(self_, tick_every, caf::tick_atom_v);
  }

private:
  device_worker* worker(std::uint32_t device) {
    return device < parts_->workers.size() ? parts_->workers[device].get() : nullptr;
  }

  void carry_out(agent_effects effects) {
    for (auto& e : effects)
      std::visit([this](auto& x) { perform(x); }, e);
  }

  void perform(agent_do::dial& x) { parts_->fabric.dial(x.address); }
  void perform(agent_do::dial_through& x) {
    parts_->log("event=asking_for_relay peer=" + x.name);
    parts_->fabric.dial_through(x.relay, x.name, x.incarnation);
  }
  void perform(agent_do::hang_up& x) {
    parts_->log("event=leaving_relay peer=" + std::to_string(x.peer));
    parts_->fabric.disconnect(x.peer);
  }
  void perform(agent_do::send& x) { parts_->fabric.send(x.peer, std::move(x.message)); }
  void perform(agent_do::probe& x) {
    proto::probe m;
    m.set_id(x.id);
    transport::frame f{x.ballast_bytes == 0 ? transport::traffic::control
                                            : transport::traffic::bulk,
                       proto::PROBE,
                       m.SerializeAsString(),
                       {}};
    if (x.ballast_bytes != 0)
      f.payload = ballast_;
    parts_->fabric.send(x.peer, std::move(f));
  }
  void perform(agent_do::open_model& x) { parts_->open_model(x.model, self_); }
  // One device after the other: those of one machine would hold one another up.
  void perform(agent_do::measure_devices& x) {
    measuring_ = x;
    measure(x.begin);
  }
  void measure(std::uint32_t device) {
    auto* w = worker(device);
    if (w == nullptr)
      return;
    w->measure(parts_->model(), measuring_.executor, measuring_.max_sequence,
               [self = agent_actor(self_), device](device_rates r) {
                 device_event e;
                 e.what = device_event::kind::measured;
                 e.device = device;
                 e.rates = r;
                 caf::anon_send(self, std::move(e));
               });
  }
  void perform(agent_do::prepare_rank& x) {
    const generation_id id{x.spec.replica, x.spec.generation};
    if (auto* w = worker(x.device))
      w->prepare(std::move(x.spec), parts_->weights, parts_->tokens(),
                 [self = agent_actor(self_), device = x.device, id](prepare_result r) {
                   device_event e;
                   e.what = device_event::kind::prepared;
                   e.device = device;
                   e.id = id;
                   e.prepared = std::move(r);
                   caf::anon_send(self, std::move(e));
                 });
  }
  void perform(agent_do::commit_rank& x) {
    if (auto* w = worker(x.device))
      w->commit(x.id.replica, x.id.generation, x.start,
                [self = agent_actor(self_), device = x.device, id = x.id](std::string error) {
                  device_event e;
                  e.what = device_event::kind::committed;
                  e.device = device;
                  e.id = id;
                  e.error = std::move(error);
                  caf::anon_send(self, std::move(e));
                });
  }
  void perform(agent_do::release_rank& x) {
    if (auto* w = worker(x.device))
      w->release(x.id.replica, x.id.generation, x.keep,
                 [self = agent_actor(self_), device = x.device, id = x.id] {
                   device_event e;
                   e.what = device_event::kind::released;
                   e.device = device;
                   e.id = id;
                   caf::anon_send(self, std::move(e));
                 });
  }
  void perform(agent_do::abort_rank& x) {
    if (auto* w = worker(x.device))
      w->abort(x.id.replica, x.id.generation);
  }
  void perform(agent_do::start_replica& x) {
    const generation_id id{x.options.replica, x.options.generation};
    x.options.inherited = parts_->replicas.take_kept(x.inherits, x.known);
    parts_->replicas.add(id, spawn_replica(self_->system(),
                                           {parts_->fabric, parts_->data, node_, self_, parts_->log,
                                            parts_->replicas},
                                           std::move(x.options)));
  }
  void perform(agent_do::drain_replica& x) {
    if (auto r = parts_->replicas.find(x.id))
      caf::anon_send(r, drain_atom_v, x.limit_ms);
  }
  void perform(agent_do::stop_replica& x) {
    if (auto r = parts_->replicas.remove(x.id))
      caf::anon_send(r, caf::close_atom_v, x.why);
  }
  void perform(agent_do::leave& x) { parts_->leave(x.why, x.again, x.process); }
  void perform(agent_do::log& x) { parts_->log(x.line); }

  agent_actor::pointer self_;
  std::unique_ptr<agent_parts> parts_;
  std::unique_ptr<agent_state> state_;
  std::string node_;
  agent_do::measure_devices measuring_;
  transport::buffer ballast_;
};

} // namespace

agent_actor spawn_agent(caf::actor_system& system, agent_parts parts, agent_options options) {
  return system.spawn(
      [parts = std::move(parts), options = std::move(options)](
          agent_actor::stateful_pointer<agent_shell> self) mutable -> agent_actor::behavior_type {
        self->state.begin(std::move(parts), std::move(options));
        return {[self](const fabric_event& e) { self->state.event(e); },
                [self](const device_event& e) { self->state.device(e); },
                [self](const replica_event& e) { self->state.replica(e); },
                [self](caf::tick_atom) { self->state.tick(); }};
      });
}

} // namespace hexgen::actors
