#include "actors/shell/clock.hpp"
#include "actors/shell/spawn.hpp"
#include "transport/proto/hexgen.pb.h"

namespace hexgen::actors {
namespace {

constexpr auto tick_every = std::chrono::milliseconds(50);
constexpr int ticks_per_status = 5;

class coordinator_shell {
public:
  static inline const char* name = "coordinator";

  explicit coordinator_shell(coordinator_actor::pointer self) : self_(self) {}

  void begin(coordinator_parts parts, coordinator_options options) {
    parts_ = std::make_unique<coordinator_parts>(std::move(parts));
    state_ = std::make_unique<coordinator_state>(std::move(options));
    caf::anon_send(parts_->router, state_->table());
    tick();
  }

  void event(const fabric_event& e) {
    switch (e.what) {
    case fabric_event::kind::frame:
      carry_out(state_->on_frame(e.peer, *e.frame, now_ms()));
      break;
    case fabric_event::kind::down:
      carry_out(state_->peer_down(e.peer.id, e.text, e.reason == transport::down_reason::goodbye,
                                  now_ms()));
      break;
    case fabric_event::kind::up:
    case fabric_event::kind::dial_failed:
      break; // members make themselves known by JOIN
    }
  }

  void tick() {
    carry_out(state_->tick(now_ms()));
    if (ticks_++ % ticks_per_status == 0) {
      state_->relayed(parts_->fabric.relayed_bytes());
      parts_->shown.set_cluster(state_->status_json(now_ms()));
      parts_->shown.set_cluster_metrics(state_->metrics_text());
    }
    self_->delayed_send(self_, tick_every, caf::tick_atom_v);
  }

private:
  void carry_out(coordinator_effects fx) {
    for (const auto& line : fx.log)
      parts_->log(line);
    for (auto& [peer, f] : fx.sends)
      if (parts_->fabric.send(peer, std::move(f)) == transport::send_result::would_block)
        parts_->log("event=slow_peer peer=" + std::to_string(peer) + " why=\"its queue is full\"");
    for (auto peer : fx.disconnects)
      parts_->fabric.disconnect(peer);
    if (fx.table) {
      caf::anon_send(parts_->router, *fx.table);
      parts_->shown.set_cluster(state_->status_json(now_ms()));
    }
    if (fx.search)
      search(std::move(*fx.search));
  }

  void search(search_request r) {
    const auto id = r.id;
    self_->request(parts_->planner, std::chrono::minutes(10), std::move(r))
        .then(
            [this](const search_result& found) {
              carry_out(state_->plan_done(found.id, found.plan, now_ms()));
            },
            [this, id](const caf::error& e) {
              scheduler::serving_plan none;
              none.missing = "the planner did not answer: " + self_->system().render(e);
              carry_out(state_->plan_done(id, none, now_ms()));
            });
  }

  coordinator_actor::pointer self_;
  std::unique_ptr<coordinator_parts> parts_;
  std::unique_ptr<coordinator_state> state_;
  std::uint64_t ticks_ = 0;
};

} // namespace

coordinator_actor spawn_coordinator(caf::actor_system& system, coordinator_parts parts,
                                    coordinator_options options) {
  return system.spawn([parts = std::move(parts), options = std::move(options)](
                          coordinator_actor::stateful_pointer<coordinator_shell> self) mutable
                      -> coordinator_actor::behavior_type {
    self->state.begin(std::move(parts), std::move(options));
    return {[self](const fabric_event& e) { self->state.event(e); },
            [self](caf::tick_atom) { self->state.tick(); }};
  });
}

} // namespace hexgen::actors
