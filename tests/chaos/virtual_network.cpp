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
  addresses_[address] = id;
  return id;
}

void virtual_network::kill(process_id id) {
  const auto it = processes_.find(id);
  if (it == processes_.end())
    return;
  const auto connections = it->second.connections;
  if (addresses_[it->second.address] == id)
    addresses_.erase(it->second.address);
  for (const auto c : connections) {
    auto& conn = connections_.at(c);
    const int mine = conn.sides[0].owner == id ? 0 : 1;
    conn.broken = true;
    conn.sides[mine].up = false;
    // Across a cut nobody hears it close.
    const auto& other = conn.sides[1 - mine];
    take_down(c, 1 - mine, is_cut(conn.sides[mine], other) ? silence_us : latency(),
              "connection closed");
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

void virtual_network::connect(process_id from, process_id to) {
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
  const process_id ids[2] = {from, to};
  for (int s = 0; s < 2; ++s) {
    const auto& other = processes_.at(ids[1 - s]);
    conn.sides[s].owner = ids[s];
    conn.sides[s].up = true;
    conn.sides[s].peer = {
        peer_number(c, s),         other.name, other.incarnation, transport::peer_role::node,
        transport::link_kind::tls, s == 0,     other.address};
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
  if (is_cut(conn.sides[mine], there))
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
      h.code->on_dial_failed(s.peer.address, why);
  });
}

bool virtual_network::is_cut(const side& from, const side& to) const {
  // A side's peer carries the other side's name.
  return cuts_.contains({to.peer.name, from.peer.name});
}

void virtual_network::cut(const std::string& from, const std::string& to) {
  if (!cuts_.try_emplace({from, to}, numbers_).second)
    return;
  for (const auto& [c, conn] : connections_)
    for (int s = 0; s < 2; ++s)
      if (!conn.broken && is_cut(conn.sides[1 - s], conn.sides[s]))
        watch_silence(c, s);
}

/// The side that hears nothing gives up; the other learns of it when a way back is left.
void virtual_network::watch_silence(std::uint64_t c, int to_side) {
  const auto& there = connections_.at(c).sides[to_side];
  const auto key = std::pair{there.peer.name, connections_.at(c).sides[1 - to_side].peer.name};
  const auto number = cuts_.at(key);
  push(now_ + silence_us, 0, [this, c, to_side, key, number] {
    const auto still = cuts_.find(key);
    auto& conn = connections_.at(c);
    if (still == cuts_.end() || still->second != number || conn.broken)
      return;
    conn.broken = true;
    take_down(c, to_side, 1, "no heartbeat");
    const bool way_back = !cuts_.contains({key.second, key.first});
    take_down(c, 1 - to_side, way_back ? latency() : chance.in(1'000, 300'000), "no heartbeat");
  });
}

void virtual_network::heal(const std::string& from, const std::string& to) {
  if (cuts_.erase({from, to}) == 0)
    return;
  for (auto& [c, conn] : connections_)
    for (int s = 0; s < 2; ++s) {
      side& there = conn.sides[s];
      if (conn.broken || there.peer.name != from || conn.sides[1 - s].peer.name != to)
        continue;
      for (auto& p : std::exchange(there.held, {}))
        deliver(c, s, std::move(p));
    }
}

void virtual_network::heal_all() {
  const auto all = cuts_;
  for (const auto& [pair, number] : all)
    heal(pair.first, pair.second);
}

} // namespace hexgen::tests
