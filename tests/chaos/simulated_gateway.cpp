#include "tests/chaos/simulated_gateway.hpp"

#include "actors/core/coordinator_state.hpp"
#include "tests/actors/core/fake_tokenizer.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>

namespace hexgen::tests {
namespace {

constexpr time_us tick_us = 100'000;

actors::router_options options(std::uint64_t incarnation) {
  actors::router_options o;
  o.first_request = incarnation << 20U;
  // Nobody gives up: a request that does not end in time is found by the checker.
  o.wait_us = 3'600'000'000;
  o.attempts_without_progress = 1 << 20;
  o.adopt_us = 2'000'000;
  return o;
}

} // namespace

simulated_gateway::simulated_gateway(virtual_network& net, std::uint64_t incarnation,
                                     planted_bug bug, history_checker& clients,
                                     std::function<void(const std::string&)> log)
    : net_(net), bug_(bug), clients_(clients), log_(std::move(log)), router_(options(incarnation)) {
  static const auto tokens = std::make_shared<byte_tokenizer>();
  router_.set_tokenizer(tokens);
  const auto name = "gateway-" + std::to_string(incarnation);
  id_ = net_.start(this, "gateway", incarnation, name);
  dial(actors::coordinator_name);
  net_.after(id_, tick_us, [this] { tick(); });
}

simulated_gateway::~simulated_gateway() {
  net_.kill(id_);
}

void simulated_gateway::tick() {
  carry_out(router_.tick(net_.now()));
  if (coordinator_ == 0)
    dial(actors::coordinator_name);
  dial_routes();
  net_.after(id_, tick_us, [this] { tick(); });
}

void simulated_gateway::dial(const std::string& address) {
  for (const auto& [id, peer] : peers_)
    if (peer.address == address)
      return;
  auto& next = dialled_[address];
  if (net_.now() < next)
    return;
  next = net_.now() + 1'500'000;
  net_.dial(id_, address);
}

void simulated_gateway::dial_routes() {
  const auto connected = [this](const actors::route_dialer::node& n) {
    return std::any_of(peers_.begin(), peers_.end(), [&](const auto& p) {
      return p.second.name == n.first && p.second.incarnation == n.second;
    });
  };
  for (const auto& d : dialer_.dials(router_.table().routes, connected, net_.now()))
    if (const auto* direct = std::get_if<actors::dial_peer>(&d))
      net_.dial(id_, direct->address);
    else if (const auto* through = std::get_if<actors::dial_through>(&d))
      net_.dial_through(id_, through->relay, through->name, through->incarnation);
}

void simulated_gateway::submit(std::uint64_t ticket, actors::generation_request request) {
  carry_out(router_.submit(ticket, std::move(request), net_.now()));
}

void simulated_gateway::cancel(std::uint64_t ticket) {
  carry_out(router_.cancel(ticket, net_.now()));
}

void simulated_gateway::on_up(const transport::peer_info& peer) {
  peers_[peer.id] = peer;
  dialled_.erase(peer.address);
  if (peer.name != actors::coordinator_name) {
    carry_out(router_.node_up(peer.name, peer.incarnation, net_.now()));
    return;
  }
  coordinator_ = peer.id;
  dialer_.relay(peer.id);
  router_.coordinator_changed(net_.now());
  proto::gateway_hello m;
  m.set_name("gateway");
  net_.send(id_, peer.id,
            transport::frame{
                transport::traffic::control, proto::GATEWAY_HELLO, m.SerializeAsString(), {}});
}

void simulated_gateway::on_down(const transport::peer_info& peer, const std::string&) {
  peers_.erase(peer.id);
  if (peer.id == coordinator_) {
    coordinator_ = 0;
    dialer_.relay(0);
    router_.coordinator_changed(net_.now());
  } else if (peer.name != actors::coordinator_name) {
    carry_out(router_.node_down(peer.name, peer.incarnation, net_.now()));
  }
}

void simulated_gateway::on_dial_failed(const std::string& address, const std::string&) {
  dialled_[address] = net_.now() + 200'000;
  dialer_.dial_failed(address);
}

void simulated_gateway::on_packet(const transport::peer_info& peer, const packet& p) {
  if (const auto* f = std::get_if<transport::frame>(&p)) {
    if (f->type == proto::ROUTING_TABLE && peer.id == coordinator_) {
      carry_out(router_.routing_table(actors::wire::decode_routing_table(f->head), net_.now()));
      dial_routes();
    }
  } else if (const auto* chunk = std::get_if<actors::wire::token_chunk>(&p)) {
    carry_out(router_.token_chunk(*chunk, net_.now()));
  } else if (const auto* failed = std::get_if<actors::wire::request_failed>(&p)) {
    carry_out(router_.request_failed(*failed, net_.now()));
  }
}

void simulated_gateway::send(const std::string& node, std::uint64_t incarnation, packet p) {
  for (auto it = peers_.rbegin(); it != peers_.rend(); ++it)
    if (it->second.name == node && it->second.incarnation == incarnation &&
        net_.send(id_, it->first, std::move(p)))
      return;
}

void simulated_gateway::carry_out(actors::router_effects effects) {
  for (auto& e : effects) {
    if (auto* submit = std::get_if<actors::send_submit>(&e)) {
      if (bug_ == planted_bug::drop_last_token && !submit->message.emitted.empty())
        submit->message.emitted.pop_back();
      send(submit->node, submit->incarnation, std::move(submit->message));
    } else if (auto* cancel = std::get_if<actors::send_cancel>(&e)) {
      send(cancel->node, cancel->incarnation, cancel->message);
    } else if (auto* d = std::get_if<actors::deliver_event>(&e)) {
      std::vector<int> ids;
      for (const auto& t : d->event.tokens)
        ids.push_back(t.id);
      clients_.received(d->ticket, d->event.choice, ids, d->event.text, d->event.finish_reason,
                        d->event.error_status, net_.now());
    } else if (auto* refuse = std::get_if<actors::refuse_submit>(&e)) {
      clients_.refused(refuse->ticket, refuse->why.status, net_.now());
    }
  }
}

} // namespace hexgen::tests
