#include "tests/chaos/virtual_network.hpp"

#include <algorithm>
#include <utility>

namespace hexgen::tests {
namespace {

constexpr time_us silence_us = 2'000'000; // then a side calls the connection dead
constexpr time_us dial_limit_us = 1'000'000;

// A peer's number says which connection and which side.
transport::peer_id peer_number(std::uint64_t connection, int side) {
  return connection * 2 + static_cast<std::uint64_t>(side);
}

} // namespace

void virtual_network::push(time_us at, process_id owner, std::function<void()> task) {
  events_.push({at, numbers_++, owner, std::move(task)});
}

bool virtual_network::step(time_us until) {
  if (events_.empty() || events_.top().at > until) {
    now_ = std::max(now_, until);
    return false;
  }
  event e = std::move(const_cast<event&>(events_.top()));
  events_.pop();
  now_ = std::max(now_, e.at);
  if (e.owner != 0) {
    const auto it = processes_.find(e.owner);
    if (it == processes_.end())
      return true;
    if (it->second.frozen_until != 0) {
      it->second.parked.push_back(std::move(e.task)); // in their order
      return true;
    }
  }
  e.task();
  return true;
}

void virtual_network::after(process_id owner, time_us delay, std::function<void()> task) {
  push(now_ + delay, owner, std::move(task));
}

virtual_network::process_id virtual_network::start(process* p, const std::string& name,
                                                   std::uint64_t incarnation,
                                                   const std::string& address) {
  const process_id id = next_process_++;
  processes_[id] = {p, name, address, incarnation, 0, {}, {}};
  if (!address.empty())
    addresses_[address] = id;
  return id;
}

void virtual_network::kill(process_id id) {
  const auto it = processes_.find(id);
  if (it == processes_.end())
    return;
  const auto connections = it->second.connections;
  if (const auto a = addresses_.find(it->second.address); a != addresses_.end() && a->second == id)
    addresses_.erase(a);
  for (const auto c : connections) {
    auto& conn = connections_.at(c);
    const int mine = conn.sides[0].owner == id ? 0 : 1;
    conn.broken = true;
    conn.sides[mine].up = false;
    // Across a cut nobody hears it close.
    take_down(c, 1 - mine, is_cut(conn, 1 - mine) ? silence_us : latency(), "connection closed");
  }
  for (auto& [c, conn] : connections_) // that it relayed
    if (conn.relay == id && !conn.broken) {
      conn.broken = true;
      for (int s = 0; s < 2; ++s)
        take_down(c, s, is_cut(conn, s) ? silence_us : latency(), "the relay closed");
    }
  processes_.erase(id);
}

void virtual_network::freeze(process_id id, time_us for_us) {
  const auto it = processes_.find(id);
  if (it == processes_.end())
    return;
  const time_us until = now_ + for_us;
  if (it->second.frozen_until >= until)
    return;
  it->second.frozen_until = until;
  push(until, 0, [this, id, until] {
    const auto h = processes_.find(id);
    if (h != processes_.end() && h->second.frozen_until == until)
      thaw(id);
  });
  for (const auto& [c, conn] : connections_)
    if (conn.relay == id && !conn.broken)
      push(now_ + silence_us, 0, [this, c = c, id] {
        const auto h = processes_.find(id);
        if (h == processes_.end() || h->second.frozen_until == 0 || connections_.at(c).broken)
          return;
        connections_.at(c).broken = true;
        take_down(c, 0, 1, "no heartbeat");
        take_down(c, 1, 1, "no heartbeat");
      });
  // Who is silent for too long is taken for dead by the other side.
  for (const auto c : it->second.connections) {
    const int other = connections_.at(c).sides[0].owner == id ? 1 : 0;
    push(now_ + silence_us, 0, [this, c, id, other] {
      const auto h = processes_.find(id);
      const auto conn = connections_.find(c);
      if (h == processes_.end() || h->second.frozen_until == 0 || conn == connections_.end() ||
          conn->second.broken)
        return;
      conn->second.broken = true;
      take_down(c, other, 1, "no heartbeat");
      take_down(c, 1 - other, latency(), "connection reset");
    });
  }
}

void virtual_network::thaw(process_id id) {
  const auto it = processes_.find(id);
  if (it == processes_.end() || it->second.frozen_until == 0)
    return;
  it->second.frozen_until = 0;
  for (auto& e : std::exchange(it->second.parked, {}))
    push(now_, id, std::move(e));
}

time_us virtual_network::latency() {
  return chance.one_in(20) ? chance.in(2'000, 30'000) : chance.in(100, 2'000);
}

void virtual_network::dial(process_id from, const std::string& address) {
  push(now_ + latency(), from, [this, from, address] {
    const auto target = addresses_.find(address);
    const auto fail = [&](time_us after_us, const char* why) {
      after(from, after_us,
            [this, from, address, why] { processes_.at(from).code->on_dial_failed(address, why); });
    };
    if (target == addresses_.end()) {
      fail(latency(), "connection refused");
      return;
    }
    const auto& a = processes_.at(from);
    const auto& b = processes_.at(target->second);
    if (cuts_.contains({a.name, b.name}) || cuts_.contains({b.name, a.name}) ||
        b.frozen_until > now_ + dial_limit_us) {
      fail(dial_limit_us, "timed out");
      return;
    }
    connect(from, target->second);
  });
}

void virtual_network::dial_through(process_id from, transport::peer_id relay,
                                   const std::string& name, std::uint64_t incarnation) {
  push(now_ + 2 * latency(), from, [this, from, relay, name, incarnation] {
    const auto link = connections_.find(relay / 2);
    if (link == connections_.end() || link->second.broken || link->second.relay != 0)
      return; // the relay went before it answered
    const auto through = link->second.sides[1 - relay % 2].owner;
    const auto target = std::find_if(processes_.begin(), processes_.end(), [&](const auto& p) {
      return p.second.name == name && p.second.incarnation == incarnation;
    });
    const auto& r = processes_.at(through);
    const auto knows = [&](std::uint64_t c) {
      const auto& conn = connections_.at(c);
      return !conn.broken && conn.relay == 0 &&
             (conn.sides[0].owner == target->first || conn.sides[1].owner == target->first);
    };
    const auto cut = [&](const std::string& a, const std::string& b) {
      return cuts_.contains({a, b}) || cuts_.contains({b, a});
    };
    if (target == processes_.end() ||
        std::none_of(r.connections.begin(), r.connections.end(), knows) ||
        cut(processes_.at(from).name, r.name) || cut(r.name, name) ||
        r.frozen_until > now_ + dial_limit_us ||
        target->second.frozen_until > now_ + dial_limit_us) {
      after(from, latency(), [this, from, address = transport::relayed_address(name, r.name)] {
        processes_.at(from).code->on_dial_failed(address, "not connected there");
      });
      return;
    }
    connect(from, target->first, through);
  });
}

void virtual_network::connect(process_id from, process_id to, process_id relay) {
  // A second connection of the same pair replaces the first.
  const auto old = processes_.at(from).connections;
  for (const auto c : old) {
    auto& conn = connections_.at(c);
    if (conn.broken || (conn.sides[0].owner != to && conn.sides[1].owner != to))
      continue;
    if (conn.sides[0].up && conn.sides[1].up)
      return; // there is one
    conn.broken = true;
    take_down(c, 0, 0, "replaced");
    take_down(c, 1, 0, "replaced");
  }
  const std::uint64_t c = next_connection_++;
  auto& conn = connections_[c];
  conn.relay = relay;
  relayed_ += relay != 0 ? 1 : 0;
  conn.relay_name = relay == 0 ? std::string() : processes_.at(relay).name;
  const process_id ids[2] = {from, to};
  for (int s = 0; s < 2; ++s) {
    const auto& other = processes_.at(ids[1 - s]);
    conn.sides[s].owner = ids[s];
    conn.sides[s].up = true;
    conn.sides[s].peer = {
        peer_number(c, s),         other.name, other.incarnation, transport::peer_role::node,
        transport::link_kind::tls, s == 0,     other.address,     conn.relay_name};
    processes_.at(ids[s]).connections.push_back(c);
    // Nothing arrives before the news that the connection is there.
    const time_us at = now_ + latency();
    conn.sides[s].next_arrival[0] = conn.sides[s].next_arrival[1] = at;
    push(at, ids[s], [this, c, s] {
      auto& x = connections_.at(c).sides[s];
      x.told = x.up;
      if (x.up)
        processes_.at(x.owner).code->on_up(x.peer);
    });
  }
}

void virtual_network::hang_up(transport::peer_id peer) {
  const auto it = connections_.find(peer / 2);
  if (it == connections_.end() || it->second.broken)
    return;
  const int mine = static_cast<int>(peer % 2);
  const bool unheard = is_cut(it->second, 1 - mine);
  it->second.broken = true;
  take_down(it->first, mine, 0, "left");
  take_down(it->first, 1 - mine, unheard ? silence_us : latency(), "connection closed");
}

bool virtual_network::send(process_id from, transport::peer_id to, packet p) {
  const auto it = connections_.find(to / 2);
  const int mine = static_cast<int>(to % 2);
  if (it == connections_.end() || it->second.sides[mine].owner != from ||
      !it->second.sides[mine].up)
    return false;
  auto& conn = it->second;
  if (conn.broken)
    return true; // it does not know yet
  side& there = conn.sides[1 - mine];
  if (is_cut(conn, 1 - mine))
    there.held.push_back(std::move(p)); // sent again and again until the way is free
  else
    deliver(it->first, 1 - mine, std::move(p));
  return true;
}

void virtual_network::deliver(std::uint64_t c, int to_side, packet p) {
  side& there = connections_.at(c).sides[to_side];
  const bool data = std::holds_alternative<std::shared_ptr<const step_packet>>(p) ||
                    std::holds_alternative<actors::wire::step_result>(p) ||
                    std::holds_alternative<actors::wire::token_chunk>(p);
  time_us& next = there.next_arrival[data ? 1 : 0];
  next = std::max(next + 1, now_ + latency());
  push(next, there.owner, [this, c, to_side, p = std::move(p)] {
    const side& s = connections_.at(c).sides[to_side];
    if (s.up)
      processes_.at(s.owner).code->on_packet(s.peer, p);
  });
}

void virtual_network::take_down(std::uint64_t c, int at_side, time_us delay,
                                const std::string& why) {
  push(now_ + delay, connections_.at(c).sides[at_side].owner, [this, c, at_side, why] {
    side& s = connections_.at(c).sides[at_side];
    if (!s.up)
      return;
    s.up = false;
    s.held.clear();
    auto& h = processes_.at(s.owner);
    std::erase(h.connections, c);
    if (s.told)
      h.code->on_down(s.peer, why);
    else if (s.peer.dialled)
      h.code->on_dial_failed(s.peer.relay.empty()
                                 ? s.peer.address
                                 : transport::relayed_address(s.peer.name, s.peer.relay),
                             why);
  });
}

// On the way to that side: of a relayed connection, before the relay or behind it.
bool virtual_network::is_cut(const connection& conn, int to_side) const {
  // A side's peer carries the other side's name.
  const auto& to = conn.sides[1 - to_side].peer.name;
  const auto& from = conn.sides[to_side].peer.name;
  return conn.relay_name.empty()
             ? cuts_.contains({from, to})
             : cuts_.contains({from, conn.relay_name}) || cuts_.contains({conn.relay_name, to});
}

void virtual_network::cut(const std::string& from, const std::string& to) {
  std::vector<std::pair<std::uint64_t, int>> whole; // until now
  for (const auto& [c, conn] : connections_)
    for (int s = 0; s < 2; ++s)
      if (!conn.broken && !is_cut(conn, s))
        whole.emplace_back(c, s);
  cuts_.emplace(from, to);
  for (const auto& [c, s] : whole)
    if (is_cut(connections_.at(c), s))
      watch_silence(c, s);
}

/// The side that hears nothing gives up; the other learns of it when a way back is left.
void virtual_network::watch_silence(std::uint64_t c, int to_side) {
  const auto silence = ++connections_.at(c).sides[to_side].silences;
  push(now_ + silence_us, 0, [this, c, to_side, silence] {
    auto& conn = connections_.at(c);
    if (!is_cut(conn, to_side) || conn.sides[to_side].silences != silence || conn.broken)
      return;
    conn.broken = true;
    take_down(c, to_side, 1, "no heartbeat");
    take_down(c, 1 - to_side, is_cut(conn, 1 - to_side) ? chance.in(1'000, 300'000) : latency(),
              "no heartbeat");
  });
}

void virtual_network::heal(const std::string& from, const std::string& to) {
  if (cuts_.erase({from, to}) == 0)
    return;
  for (auto& [c, conn] : connections_)
    for (int s = 0; s < 2; ++s) {
      if (conn.broken || is_cut(conn, s))
        continue;
      ++conn.sides[s].silences; // it is heard again
      for (auto& p : std::exchange(conn.sides[s].held, {}))
        deliver(c, s, std::move(p));
    }
}

void virtual_network::heal_all() {
  for (const auto& [from, to] : std::set(cuts_))
    heal(from, to);
}

} // namespace hexgen::tests
