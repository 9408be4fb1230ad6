#include "actors/shell/clock.hpp"
#include "actors/shell/spawn.hpp"
#include "transport/proto/hexgen.pb.h"

#include <random>

namespace hexgen::actors {
namespace {

constexpr auto tick_every = std::chrono::milliseconds(50);
constexpr int ticks_per_status = 10;

scheduler::hash_key draw_key() {
  std::random_device random;
  const auto draw = [&] { return (std::uint64_t{random()} << 32) | random(); };
  return {draw(), draw()};
}

class replica_shell {
public:
  static inline const char* name = "replica";

  explicit replica_shell(replica_actor::pointer self) : self_(self) {}

  void begin(replica_parts parts, replica_options options) {
    parts_ = std::make_unique<replica_parts>(std::move(parts));
    id_ = {options.replica, options.generation};
    state_ = std::make_unique<replica_state>(std::move(options));
    tick();
  }

  void input(const replica_input& in) {
    if (const auto* s = std::get_if<wire::submit>(&in.message))
      carry_out(state_->submit(in.from, *s, now_us()));
    else if (const auto* c = std::get_if<wire::cancel>(&in.message))
      carry_out(state_->cancel(in.from, *c, now_us()));
    else
      carry_out(state_->step_result(std::get<wire::step_result>(in.message), now_us()));
  }

  void lost(std::uint64_t router) { carry_out(state_->router_lost(router, now_us())); }

  void drain(std::uint32_t limit_ms) {
    carry_out(state_->drain(now_us()));
    self_->delayed_send(self_, std::chrono::milliseconds(limit_ms), limit_atom_v);
  }

  void limit() {
    if (!state_->idle())
      carry_out(state_->abort("the replica is being replaced", now_us()));
    tell({replica_event::kind::drained, id_, {}, {}});
  }

  void close(const std::string& why) {
    carry_out(state_->abort(why, now_us()));
    if (state_->options().stage_recovery)
      parts_->host.keep(id_.generation, state_->kept());
    self_->quit();
  }

  void tick() {
    carry_out(state_->tick(now_us()));
    if (ticks_++ % ticks_per_status == 0 && !state_->dead())
      tell({replica_event::kind::status, id_, {}, state_->status()});
    self_->delayed_send(self_, tick_every, caf::tick_atom_v);
  }

private:
  void tell(replica_event e) { caf::anon_send(parts_->agent, std::move(e)); }

  void carry_out(replica_effects effects) {
    for (auto& e : effects) {
      if (auto* s = std::get_if<send_step>(&e)) {
        if (!parts_->data.send({parts_->node, 0}, // loops back, whatever the incarnation
                               {transport::traffic::data, proto::STEP, encode(s->message), {}}))
          tell({replica_event::kind::broken, id_, "stage 0 does not take steps", {}});
      } else if (auto* c = std::get_if<send_chunks>(&e)) {
        // What does not fit is a gap for the router, which then moves the requests.
        parts_->fabric.send(
            c->to, {transport::traffic::control, proto::TOKEN_CHUNK, wire::encode(c->chunks), {}});
      } else if (auto* f = std::get_if<send_failed>(&e)) {
        parts_->fabric.send(
            f->to, {transport::traffic::control, proto::REQUEST_FAILED, encode(f->message), {}});
      } else if (std::get_if<replica_drained>(&e) != nullptr) {
        tell({replica_event::kind::drained, id_, {}, {}});
      } else if (auto* b = std::get_if<replica_broken>(&e)) {
        tell({replica_event::kind::broken, id_, b->reason, {}});
      }
    }
  }

  replica_actor::pointer self_;
  std::unique_ptr<replica_parts> parts_;
  std::unique_ptr<replica_state> state_;
  generation_id id_;
  int ticks_ = 0;
};

} // namespace

replica_actor spawn_replica(caf::actor_system& system, replica_parts parts,
                            replica_options options) {
  options.prefix_key = draw_key();
  return system.spawn([parts = std::move(parts), options = std::move(options)](
                          replica_actor::stateful_pointer<replica_shell> self) mutable
                      -> replica_actor::behavior_type {
    self->state.begin(std::move(parts), std::move(options));
    return {[self](const replica_input& in) { self->state.input(in); },
            [self](lost_atom, std::uint64_t router) { self->state.lost(router); },
            [self](drain_atom, std::uint32_t limit_ms) { self->state.drain(limit_ms); },
            [self](limit_atom) { self->state.limit(); },
            [self](caf::close_atom, const std::string& why) { self->state.close(why); },
            [self](caf::tick_atom) { self->state.tick(); }};
  });
}

void replica_host::add(generation_id id, replica_actor replica) {
  const std::lock_guard guard(mutex_);
  replicas_[id.generation] = {id.replica, std::move(replica)};
}

replica_actor replica_host::remove(generation_id id) {
  const std::lock_guard guard(mutex_);
  auto i = replicas_.find(id.generation);
  if (i == replicas_.end() || i->second.first != id.replica)
    return {};
  auto out = std::move(i->second.second);
  replicas_.erase(i);
  return out;
}

replica_actor replica_host::find(generation_id id) const {
  const std::lock_guard guard(mutex_);
  auto i = replicas_.find(id.generation);
  return i == replicas_.end() || i->second.first != id.replica ? replica_actor{} : i->second.second;
}

std::vector<replica_actor> replica_host::clear() {
  const std::lock_guard guard(mutex_);
  std::vector<replica_actor> out;
  for (auto& [generation, r] : replicas_)
    out.push_back(std::move(r.second));
  replicas_.clear();
  return out;
}

std::uint64_t replica_host::refused() const {
  const std::lock_guard guard(mutex_);
  return refused_;
}

void replica_host::keep(std::uint64_t generation, scheduler::kept_blocks blocks) {
  const std::lock_guard guard(mutex_);
  kept_ = {generation, std::make_shared<const scheduler::kept_blocks>(std::move(blocks))};
}

std::shared_ptr<const scheduler::kept_blocks>
replica_host::take_kept(std::uint64_t generation, const std::vector<kept_sequence>& known) {
  const std::lock_guard guard(mutex_);
  if (generation != 0 && kept_.first == generation)
    return std::exchange(kept_, {}).second;
  if (known.empty())
    return nullptr;
  auto out = std::make_shared<scheduler::kept_blocks>();
  out->key = draw_key();
  for (const auto& s : known)
    scheduler::add_kept(*out, s.tokens, s.blocks);
  return out;
}

void replica_host::on_frame(transport::peer_id from, const transport::frame& f) {
  auto hand_over = [&](generation_id id, auto message) {
    if (auto replica = find(id)) {
      caf::anon_send(replica, replica_input{from, std::move(message)});
      return true;
    }
    const std::lock_guard guard(mutex_);
    ++refused_;
    return false;
  };
  try {
    if (f.type == proto::SUBMIT) {
      auto m = wire::decode_submit(f.head);
      const wire::request_failed no{m.request, m.attempt, true, 503, "the generation is not here"};
      if (!hand_over({m.replica, m.generation}, std::move(m)))
        fabric_.send(from, {transport::traffic::control, proto::REQUEST_FAILED, encode(no), {}});
    } else if (f.type == proto::CANCEL) {
      auto m = wire::decode_cancel(f.head);
      hand_over({m.replica, m.generation}, m);
    } else {
      auto m = wire::decode_step_result(f.head);
      hand_over({m.replica, m.generation}, std::move(m));
    }
  } catch (const wire::wire_error&) {
    const std::lock_guard guard(mutex_);
    ++refused_;
  }
}

void replica_host::peer_lost(transport::peer_id peer) {
  const std::lock_guard guard(mutex_);
  for (auto& [generation, r] : replicas_)
    caf::anon_send(r.second, lost_atom_v, std::uint64_t{peer});
}

} // namespace hexgen::actors
