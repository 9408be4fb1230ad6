#include "actors/core/route_dialer.hpp"
#include "actors/shell/clock.hpp"
#include "actors/shell/spawn.hpp"
#include "transport/proto/hexgen.pb.h"

#include <set>

namespace hexgen::actors {
namespace {

constexpr auto tick_every = std::chrono::milliseconds(50);

class router_shell {
public:
  static inline const char* name = "router";

  explicit router_shell(router_actor::pointer self) : self_(self) {}

  void begin(router_parts parts, router_options options,
             std::shared_ptr<const compute::tokenizer> tokens) {
    parts_ = std::make_unique<router_parts>(std::move(parts));
    state_ = std::make_unique<router_state>(std::move(options));
    if (tokens)
      state_->set_tokenizer(std::move(tokens));
    tick();
  }

  void event(const fabric_event& e) {
    if (e.peer.role != transport::peer_role::node)
      return; // clients speak to the API, not to the router
    if (e.peer.name == coordinator_name && e.what != fabric_event::kind::frame) {
      dialer_.relay(e.what == fabric_event::kind::up ? e.peer.id : 0);
      // Running replicas go on; the next coordinator may number its tables anew.
      if (e.what != fabric_event::kind::dial_failed)
        state_->coordinator_changed(now_us());
      return;
    }
    switch (e.what) {
    case fabric_event::kind::up:
      peers_[{e.peer.name, e.peer.incarnation}] = e.peer;
      carry_out(state_->node_up(e.peer.name, e.peer.incarnation, now_us()));
      break;
    case fabric_event::kind::down:
      if (auto i = peers_.find({e.peer.name, e.peer.incarnation});
          i != peers_.end() && i->second.id == e.peer.id) {
        peers_.erase(i);
        carry_out(state_->node_down(e.peer.name, e.peer.incarnation, now_us()));
      }
      break;
    case fabric_event::kind::dial_failed:
      dialer_.dial_failed(e.address);
      break;
    case fabric_event::kind::frame:
      frame(e);
      break;
    }
  }

  void table(const wire::routing_table& t) {
    carry_out(state_->routing_table(t, now_us()));
    connect();
    show();
  }

  void call(const service_call& c) {
    if (!c.request) {
      calls_.erase(c.ticket);
      carry_out(state_->cancel(c.ticket, now_us()));
      return;
    }
    calls_[c.ticket] = {c.events, c.refused, c.request->choices};
    carry_out(state_->submit(c.ticket, *c.request, now_us()));
  }

  void tick() {
    carry_out(state_->tick(now_us()));
    connect();
    show();
    self_->delayed_send(self_, tick_every, caf::tick_atom_v);
  }

private:
  struct open_call {
    generation_service::sink events;
    generation_service::refused refused;
    int choices = 1;
  };

  void frame(const fabric_event& e) {
    try {
      switch (e.frame->type) {
      case proto::TOKEN_CHUNK:
        for (const auto& chunk : wire::decode_token_chunks(e.frame->head))
          carry_out(state_->token_chunk(chunk, now_us()));
        break;
      case proto::REQUEST_FAILED:
        carry_out(state_->request_failed(wire::decode_request_failed(e.frame->head), now_us()));
        break;
      case proto::ROUTING_TABLE:
        table(wire::decode_routing_table(e.frame->head));
        break;
      default:
        break;
      }
    } catch (const wire::wire_error& error) {
      parts_->log("event=bad_message peer=" + e.peer.name + " why=\"" + error.what() + "\"");
    }
  }

  template <class Message>
  void send(const std::string& node, std::uint64_t incarnation, std::uint32_t type,
            const Message& m) {
    auto i = peers_.find({node, incarnation});
    const bool sent =
        i != peers_.end() &&
        parts_->fabric.send(i->second.id, {transport::traffic::control, type, encode(m), {}}) ==
            transport::send_result::accepted;
    if (!sent && type == proto::SUBMIT)
      carry_out(state_->node_down(node, incarnation, now_us()));
  }

  void carry_out(router_effects effects) {
    for (auto& e : effects) {
      if (auto* s = std::get_if<send_submit>(&e)) {
        send(s->node, s->incarnation, proto::SUBMIT, s->message);
      } else if (auto* c = std::get_if<send_cancel>(&e)) {
        send(c->node, c->incarnation, proto::CANCEL, c->message);
      } else if (auto* d = std::get_if<deliver_event>(&e)) {
        auto i = calls_.find(d->ticket);
        if (i == calls_.end())
          continue;
        const auto sink = i->second.events; // the sink may cancel, which erases the call
        const bool last = !d->event.finish_reason.empty() || d->event.error_status != 0;
        if (last && --i->second.choices == 0)
          calls_.erase(i);
        sink(d->event);
      } else if (auto* r = std::get_if<refuse_submit>(&e)) {
        auto i = calls_.find(r->ticket);
        if (i == calls_.end())
          continue;
        const auto refused = i->second.refused;
        calls_.erase(i);
        refused(r->why);
      }
    }
  }

  // Tokens never pass the coordinator's process but where it relays, and those it cannot read.
  void connect() {
    const auto connected = [this](const route_dialer::node& n) { return peers_.count(n) != 0; };
    for (const auto& d : dialer_.dials(state_->table().routes, connected, now_us()))
      if (const auto* direct = std::get_if<dial_peer>(&d))
        parts_->fabric.dial(direct->address);
      else if (const auto* through = std::get_if<dial_through>(&d))
        parts_->fabric.dial_through(through->relay, through->name, through->incarnation);
  }

  void show() {
    parts_->shown.set_not_ready(state_->not_ready());
    const auto s = state_->stats();
    auto line = [](const char* name, const char* kind, auto value) {
      return std::string("# TYPE ") + name + " " + kind + "\n" + name + " " +
             std::to_string(value) + "\n";
    };
    parts_->shown.set_metrics(line("hexgen:router_sequences", "gauge", s.sequences) +
                              line("hexgen:router_waiting", "gauge", s.waiting) +
                              line("hexgen:requests_recovered_total", "counter", s.moved) +
                              line("hexgen:router_stale_chunks_total", "counter", s.stale_chunks) +
                              line("hexgen:router_gaps_total", "counter", s.gaps) +
                              line("hexgen:router_refused_total", "counter", s.refused) +
                              line("hexgen:router_failed_total", "counter", s.failed) +
                              line("hexgen:router_finished_total", "counter", s.finished) +
                              line("hexgen:router_cancelled_total", "counter", s.cancelled));
  }

  router_actor::pointer self_;
  std::unique_ptr<router_parts> parts_;
  std::unique_ptr<router_state> state_;
  std::map<std::pair<std::string, std::uint64_t>, transport::peer_info> peers_; // name, incarnation
  route_dialer dialer_;
  std::unordered_map<ticket_id, open_call> calls_;
};

} // namespace

router_actor spawn_router(caf::actor_system& system, router_parts parts, router_options options,
                          std::shared_ptr<const compute::tokenizer> tokens) {
  return system.spawn(
      [parts = std::move(parts), options = std::move(options),
       tokens = std::move(tokens)](router_actor::stateful_pointer<router_shell> self) mutable
      -> router_actor::behavior_type {
        self->state.begin(std::move(parts), std::move(options), std::move(tokens));
        return {[self](const fabric_event& e) { self->state.event(e); },
                [self](const wire::routing_table& t) { self->state.table(t); },
                [self](const service_call& c) { self->state.call(c); },
                [self](caf::tick_atom) { self->state.tick(); }};
      });
}

} // namespace hexgen::actors
