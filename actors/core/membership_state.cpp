#include "actors/core/membership_state.hpp"

#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cmath>

namespace hexgen::actors {
namespace {

constexpr int most_devices = 64;
constexpr double worth_a_plan = 0.2; // of a device's rate, when that has changed
constexpr int most_links = 1024;
constexpr std::size_t most_members = 1024;
constexpr std::size_t most_ghosts = 4096;
constexpr std::size_t longest_name = 64;

bool good_name(const std::string& name) {
  return !name.empty() && name.size() <= longest_name &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

bool good_rate(double us) {
  return std::isfinite(us) && us >= 0 && us < 1e12;
}

std::string bad_device(const proto::device_report& d) {
  if (d.memory_bytes() == 0 || d.memory_bytes() > (std::uint64_t{1} << 50))
    return "memory_bytes";
  if (!(d.speed() > 0) || d.speed() > 1)
    return "speed";
  if (d.threads() > 4096)
    return "threads";
  if (d.kind().size() > 256 || d.description().size() > 1024)
    return "kind";
  if (!good_rate(d.decode_us_per_layer()) || !good_rate(d.prefill_us_per_token_layer()) ||
      !good_rate(d.decode_us_head()))
    return "rates";
  constexpr std::uint64_t most = std::uint64_t{1} << 50;
  for (const auto bytes : {d.layer_bytes(), d.embedding_bytes(), d.head_bytes(),
                           d.kv_bytes_per_token_layer(), d.activation_bytes()})
    if (bytes > most)
      return "sizes";
  return {};
}

scheduler::serving_sizes sizes_of(const proto::device_report& d) {
  return {d.layer_bytes(), d.embedding_bytes(), d.head_bytes(), d.kv_bytes_per_token_layer(),
          d.activation_bytes()};
}

member_device device_of(const proto::device_report& d) {
  return {d.index(),          d.kind(),   d.description(),         d.memory_bytes(),
          d.threads(),        d.speed(),  d.decode_us_per_layer(), d.prefill_us_per_token_layer(),
          d.decode_us_head(), sizes_of(d)};
}

bool measured(const member& m) {
  return std::all_of(m.devices.begin(), m.devices.end(),
                     [](const member_device& d) { return d.decode_us_per_layer > 0; });
}

std::string bad_join(const transport::peer_info& peer, const proto::join& m) {
  if (!good_name(m.name()))
    return "a node name has 1 to 64 characters of A-Z a-z 0-9 . _ -";
  if (peer.role != transport::peer_role::node)
    return "only a process with the cluster token may join as a node";
  if (m.name() != peer.name || m.incarnation() != peer.incarnation)
    return "join.name and join.incarnation must be the connection's";
  if (m.address().size() > 256 || m.zone().size() > 256 || m.restarted_because().size() > 1024)
    return "join.address, join.zone or join.restarted_because is too long";
  if (m.devices_size() == 0 || m.devices_size() > most_devices)
    return "a node has 1 to 64 devices";
  for (int i = 0; i < m.devices_size(); ++i) {
    if (m.devices(i).index() != static_cast<std::uint32_t>(i))
      return "join.devices.index must count from 0";
    if (auto field = bad_device(m.devices(i)); !field.empty())
      return "join.devices." + field + " is out of range";
  }
  return {};
}

} // namespace

const char* to_string(membership_change::kind what) {
  using kind = membership_change::kind;
  switch (what) {
  case kind::joined:
    return "joined";
  case kind::ready:
    return "ready";
  case kind::links:
    return "links";
  case kind::rates:
    return "rates";
  case kind::suspect:
    return "suspect";
  case kind::recovered:
    return "recovered";
  case kind::gone:
    return "gone";
  }
  return "?";
}

member* membership_state::by_peer(transport::peer_id peer) {
  for (auto& [name, m] : members_)
    if (m.peer == peer && peer != 0)
      return &m;
  return nullptr;
}

const member* membership_state::find(const std::string& node) const {
  auto i = members_.find(node);
  return i == members_.end() ? nullptr : &i->second;
}

const member* membership_state::find(transport::peer_id peer) const {
  return const_cast<membership_state*>(this)->by_peer(peer);
}

bool membership_state::alive(const std::string& node, std::uint64_t incarnation) const {
  const auto* m = find(node);
  return m != nullptr && m->incarnation == incarnation && m->phase != member_phase::suspect &&
         m->peer != 0;
}

join_outcome membership_state::join(const transport::peer_info& peer, const proto::join& m,
                                    time_ms now) {
  join_outcome out;
  out.refused = bad_join(peer, m);
  if (!out.refused.empty())
    return out;
  if (auto g = ghosts_.find(m.name()); g != ghosts_.end() && g->second == m.incarnation()) {
    out.refused = "ghost: this incarnation of " + m.name() +
                  " was declared gone; it must come back as a new one";
    return out;
  }
  auto known = members_.find(m.name());
  if (known != members_.end() && known->second.incarnation == m.incarnation()) {
    auto& old = known->second;
    out.rejoined = true;
    old.peer = peer.id;
    old.heard_ms = now;
    old.address = m.address();
    if (old.phase == member_phase::suspect && !old.hung) {
      old.phase = measured(old) ? member_phase::ready : member_phase::measuring;
      old.suspicion.clear();
      out.changes.push_back({membership_change::kind::recovered, old.name, old.incarnation, {}});
    }
    return out;
  }
  if (known != members_.end()) {
    if (known->second.peer != 0 && known->second.phase != member_phase::suspect) {
      out.refused = "the name " + m.name() + " is in use by a node that is alive";
      return out;
    }
    leave(m.name(), "a new incarnation joined", now, out.changes);
  }
  if (members_.size() >= most_members) {
    out.refused = "the cluster is full";
    return out;
  }
  member fresh;
  fresh.name = m.name();
  fresh.incarnation = m.incarnation();
  fresh.peer = peer.id;
  fresh.address = m.address();
  fresh.zone = m.zone();
  fresh.restarted_because = m.restarted_because();
  fresh.draining = m.draining();
  fresh.joined_ms = fresh.heard_ms = now;
  fresh.plannable_ms = now;
  for (const auto& d : m.devices())
    fresh.devices.push_back(device_of(d));
  // A node that left often lately waits before it is planned with: 0, 2, 4, ... at most 30 s.
  auto& left = departures_[m.name()];
  std::erase_if(left, [&](time_ms t) { return t + times_.flap_window_ms < now; });
  if (left.size() > 1)
    fresh.plannable_ms =
        now + std::min<time_ms>(30'000, 1000ULL << std::min<std::size_t>(left.size() - 1, 5));
  if (left.empty())
    departures_.erase(m.name());
  out.changes.push_back({membership_change::kind::joined, fresh.name, fresh.incarnation,
                         fresh.restarted_because.empty()
                             ? std::string()
                             : "its process started anew: " + fresh.restarted_because});
  auto& placed = members_[m.name()] = std::move(fresh);
  settle(placed, now, out.changes);
  return out;
}

// From measuring to ready as soon as every device has its rates.
void membership_state::settle(member& m, time_ms, membership_changes& out) {
  if (m.phase != member_phase::measuring || !measured(m))
    return;
  m.phase = member_phase::ready;
  out.push_back({membership_change::kind::ready, m.name, m.incarnation, {}});
}

membership_changes membership_state::heartbeat(transport::peer_id peer, const proto::heartbeat& m,
                                               time_ms now) {
  membership_changes out;
  auto* known = by_peer(peer);
  if (known == nullptr)
    return out;
  known->heard_ms = now;
  known->relayed_bytes = m.relayed_bytes();
  known->load_progress.reset();
  if (m.has_load_progress() && std::isfinite(m.load_progress()))
    known->load_progress = std::clamp(m.load_progress(), 0.0, 1.0);
  for (const auto& d : m.devices())
    if (d.index() < known->devices.size() && bad_device(d).empty()) {
      auto& mine = known->devices[d.index()];
      if (known->phase == member_phase::ready &&
          std::abs(d.decode_us_per_layer() - mine.decode_us_per_layer) >
              worth_a_plan * mine.decode_us_per_layer)
        out.push_back({membership_change::kind::rates, known->name, known->incarnation, {}});
      // What was promised at join stays; only measurements change.
      mine.decode_us_per_layer = d.decode_us_per_layer();
      mine.prefill_us_per_token_layer = d.prefill_us_per_token_layer();
      mine.decode_us_head = d.decode_us_head();
      mine.sizes = sizes_of(d);
    }
  if (known->phase == member_phase::suspect && !known->hung) {
    known->phase = measured(*known) ? member_phase::ready : member_phase::measuring;
    known->suspicion.clear();
    out.push_back({membership_change::kind::recovered, known->name, known->incarnation, {}});
  }
  settle(*known, now, out);
  return out;
}

bool membership_state::apart(const std::string& a, const std::string& b) const {
  bool told = false, reachable = false;
  for (const auto& [from, to] : {std::pair(find(a), b), std::pair(find(b), a)})
    if (from != nullptr)
      if (const auto l = from->links.find(to); l != from->links.end()) {
        told = true;
        reachable |= l->second.reachable;
      }
  return told && !reachable;
}

membership_changes membership_state::link_report(transport::peer_id peer,
                                                 const proto::link_report& m, time_ms now) {
  membership_changes out;
  auto* known = by_peer(peer);
  if (known == nullptr || m.links_size() > most_links)
    return out;
  known->heard_ms = now;
  std::string found;
  for (const auto& l : m.links()) {
    if (!good_name(l.peer()) || l.kind().size() > 16 || l.detail().size() > 4096 ||
        l.relay().size() > 256)
      continue;
    if (!good_rate(l.latency_us()) || !good_rate(l.bandwidth_gbps()))
      continue;
    if (l.reachable() && apart(known->name, l.peer()))
      found = known->name + " and " + l.peer() + " reach each other after all";
    known->links[l.peer()] = {l.kind(),           l.latency_us(),
                              l.bandwidth_gbps(), l.reachable() && l.bandwidth_gbps() > 0,
                              l.detail(),         l.relay()};
  }
  if (known->links.size() > most_links)
    std::erase_if(known->links, [&](const auto& l) { return members_.count(l.first) == 0; });
  out.push_back({membership_change::kind::links, known->name, known->incarnation, found});
  return out;
}

void membership_state::suspect(member& m, const std::string& why, time_ms now,
                               membership_changes& out) {
  if (m.phase == member_phase::suspect)
    return;
  m.phase = member_phase::suspect;
  m.suspicion = why;
  m.suspect_ms = now;
  out.push_back({membership_change::kind::suspect, m.name, m.incarnation, why});
}

void membership_state::leave(std::string name, const std::string& why, time_ms now,
                             membership_changes& out) {
  auto i = members_.find(name);
  if (i == members_.end())
    return;
  suspect(i->second, why, now, out);
  out.push_back({membership_change::kind::gone, name, i->second.incarnation, why});
  if (ghosts_.size() >= most_ghosts)
    ghosts_.erase(ghosts_.begin());
  ghosts_[name] = i->second.incarnation;
  if (departures_.size() < most_ghosts)
    departures_[name].push_back(now);
  members_.erase(i);
  for (auto& [other, m] : members_)
    m.links.erase(name);
}

membership_changes membership_state::connection_lost(transport::peer_id peer,
                                                     const std::string& why, bool goodbye,
                                                     time_ms now) {
  membership_changes out;
  auto* known = by_peer(peer);
  if (known == nullptr)
    return out;
  known->peer = 0;
  if (goodbye) {
    leave(known->name, "it said goodbye", now, out);
  } else {
    suspect(*known, "connection lost: " + why, now, out);
    known->suspect_ms = now; // the time to come back starts here
  }
  return out;
}

membership_changes membership_state::late_step(const std::string& node, const std::string& why,
                                               time_ms now) {
  membership_changes out;
  if (auto i = members_.find(node); i != members_.end()) {
    i->second.hung = true;
    suspect(i->second, why, now, out);
  }
  return out;
}

membership_changes membership_state::progress(const std::string& node, time_ms now) {
  membership_changes out;
  auto i = members_.find(node);
  if (i == members_.end() || !i->second.hung)
    return out;
  auto& m = i->second;
  m.hung = false;
  m.heard_ms = now;
  m.suspicion.clear();
  m.phase = measured(m) ? member_phase::ready : member_phase::measuring;
  out.push_back({membership_change::kind::recovered, m.name, m.incarnation, {}});
  return out;
}

membership_changes membership_state::tick(time_ms now) {
  membership_changes out;
  std::vector<std::pair<std::string, std::string>> leaving;
  // While this process stood still it heard nobody: that is no silence of theirs.
  constexpr time_ms own_stall_ms = 400;
  const time_ms since = ticked_ms_ == 0 ? 0 : now - std::min(now, ticked_ms_);
  const time_ms stall = since > own_stall_ms ? since : 0;
  ticked_ms_ = now;
  for (auto& [name, m] : members_) {
    m.heard_ms = std::min(now, m.heard_ms + stall);
    if (m.peer == 0)
      m.suspect_ms = std::min(now, m.suspect_ms + stall);
    const auto silent = now - std::min(now, m.heard_ms);
    if (m.peer == 0) {
      if (now - std::min(now, m.suspect_ms) >= times_.redial_ms)
        leaving.emplace_back(name, m.suspicion);
    } else if (silent >= times_.gone_ms) {
      leaving.emplace_back(name, "no heartbeat for " + std::to_string(silent) + " ms");
    } else if (silent >= times_.suspect_ms) {
      suspect(m, "no heartbeat for " + std::to_string(silent) + " ms", now, out);
    }
  }
  for (const auto& [name, why] : leaving)
    leave(name, why, now, out);
  return out;
}

bool membership_state::set_draining(const std::string& node, bool draining) {
  auto i = members_.find(node);
  if (i == members_.end())
    return false;
  i->second.draining = draining;
  return true;
}

bool membership_state::measuring(time_ms now) const {
  return std::any_of(members_.begin(), members_.end(), [&](const auto& e) {
    return e.second.phase == member_phase::measuring &&
           now < e.second.joined_ms + times_.measure_ms;
  });
}

void membership_state::end_damping() {
  for (auto& [name, m] : members_)
    m.plannable_ms = m.joined_ms;
}

bool membership_state::links_known() const {
  for (auto a = members_.begin(); a != members_.end(); ++a)
    for (auto b = std::next(a); b != members_.end(); ++b) {
      if (a->second.phase != member_phase::ready || b->second.phase != member_phase::ready)
        continue;
      if (a->second.links.count(b->first) == 0 && b->second.links.count(a->first) == 0)
        return false;
    }
  return true;
}

membership_state::view membership_state::plannable(time_ms now) const {
  view out;
  auto usable = [&](const member& m) {
    return m.phase == member_phase::ready && m.peer != 0 && m.plannable_ms <= now;
  };
  for (const auto& [name, m] : members_) {
    if (m.phase == member_phase::ready && m.plannable_ms > now)
      out.next_ms = out.next_ms == 0 ? m.plannable_ms : std::min(out.next_ms, m.plannable_ms);
    if (!usable(m))
      continue;
    for (const auto& d : m.devices) {
      out.devices.push_back({name, d.index, d.memory_bytes, d.decode_us_per_layer,
                             d.prefill_us_per_token_layer, d.decode_us_head, m.draining, d.sizes});
      out.incarnations.push_back(m.incarnation);
    }
  }
  // One measurement serves both directions until the other side has its own.
  auto direction = [&](const member& from, const member& to) {
    auto own = from.links.find(to.name);
    if (own != from.links.end() && own->second.reachable) {
      out.links.push_back({from.name, to.name, own->second.latency_us, own->second.bandwidth_gbps});
      return;
    }
    auto back = to.links.find(from.name);
    if (back != to.links.end() && back->second.reachable)
      out.links.push_back(
          {from.name, to.name, back->second.latency_us, back->second.bandwidth_gbps});
  };
  for (const auto& [a, from] : members_)
    for (const auto& [b, to] : members_)
      if (a != b && usable(from) && usable(to))
        direction(from, to);
  return out;
}

} // namespace hexgen::actors
