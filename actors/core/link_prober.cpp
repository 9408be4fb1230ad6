#include "actors/core/link_prober.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

namespace hexgen::actors {
namespace {

constexpr std::uint64_t other_side_us = 1'500'000; // then the larger name dials too
// dial_failed or peer_up comes first, but for a dial that met a connection which ended then.
constexpr std::uint64_t lost_dial_us = 3'000'000;
constexpr std::uint64_t relay_at_once_us = 1'000'000; // agents that may relay are dialled first
constexpr std::uint64_t probe_limit_us = 5'000'000;

std::uint64_t backoff_us(int failures, std::uint64_t salt) {
  const auto base = std::min<std::uint64_t>(5'000'000, 100'000ULL << std::min(failures, 6));
  return base / 2 + salt % (base / 2 + 1); // jitter: pairs do not dial in step
}

} // namespace

prober_effects link_prober::directory(std::vector<link_peer> peers, std::uint64_t now_us) {
  prober_effects out;
  std::map<std::string, link> next;
  for (auto& p : peers) {
    if (p.name == own_)
      continue;
    auto old = links_.find(p.name);
    if (old != links_.end() && old->second.who.incarnation == p.incarnation) {
      old->second.who = p;
      next.emplace(p.name, std::move(old->second));
      continue;
    }
    link fresh;
    fresh.who = p;
    // Who cannot be dialled need not wait for it.
    fresh.dial_at_us = own_ < p.name || own_address_.empty() ? now_us : now_us + other_side_us;
    const bool nobody_dials = own_address_.empty() && p.address.empty();
    fresh.relay_at_us = now_us + (nobody_dials ? relay_at_once_us : relay_after_us);
    next.emplace(p.name, std::move(fresh));
  }
  links_ = std::move(next);
  for (auto& [name, l] : links_) {
    auto known = up_.find(name);
    if (l.peer == 0 && known != up_.end() && known->second.incarnation == l.who.incarnation) {
      auto more = peer_up(known->second, now_us);
      out.insert(out.end(), more.begin(), more.end());
    }
  }
  auto more = tick(now_us);
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

prober_effects link_prober::peer_up(const transport::peer_info& peer, std::uint64_t now_us) {
  prober_effects out;
  up_[peer.name] = peer;
  auto i = links_.find(peer.name);
  if (i == links_.end() || i->second.who.incarnation != peer.incarnation)
    return out;
  auto& l = i->second;
  l.peer = peer.id;
  l.kind = peer.kind;
  l.failed_dials = 0;
  l.relay = peer.relay;
  l.relays_tried.clear();
  l.done = 0;
  l.best_small_us = l.best_big_us = 0;
  next_probe(l, now_us, out);
  return out;
}

prober_effects link_prober::peer_down(transport::peer_id peer, const std::string& why,
                                      std::uint64_t now_us) {
  prober_effects out;
  std::erase_if(up_, [&](const auto& u) { return u.second.id == peer; });
  for (auto& [name, l] : links_)
    if (l.peer == peer) {
      l.peer = 0;
      l.probe = 0;
      l.last.detail = why;
      l.dial_at_us = own_ < name ? now_us + 100'000 : now_us + other_side_us;
      l.relay_at_us = now_us + (l.relay.empty() ? relay_after_us : 100'000);
    }
  return out;
}

prober_effects link_prober::dial_failed(const std::string& address, const std::string& why,
                                        std::uint64_t now_us) {
  prober_effects out;
  for (auto& [name, l] : links_)
    if (l.who.address == address && l.peer == 0) {
      ++l.failed_dials;
      l.dial_at_us = now_us + backoff_us(l.failed_dials, now_us ^ std::hash<std::string>{}(own_));
      unreachable(l, why, out);
    } else if (l.peer == 0 && !l.relay.empty() &&
               address == transport::relayed_address(name, l.relay)) {
      ++l.failed_dials;
      l.relay_at_us = now_us + backoff_us(l.failed_dials, now_us ^ std::hash<std::string>{}(own_));
      const auto* next = next_relay(l);
      if (next == nullptr || l.relays_tried.count(next->name) != 0) // all have been asked
        unreachable(l, "no relay: " + why, out);
    }
  return out;
}

// Who was tried least often; of these an agent, and the nearest.
const transport::peer_info* link_prober::next_relay(const link& l) const {
  const auto rank = [&](const transport::peer_info& p) {
    const auto tried = l.relays_tried.find(p.name);
    const auto known = links_.find(p.name);
    const bool near = known != links_.end() && known->second.measured;
    return std::tuple(tried == l.relays_tried.end() ? 0 : tried->second, p.name == last_relay_,
                      near ? known->second.last.latency_us : std::numeric_limits<double>::max());
  };
  const transport::peer_info* best = nullptr;
  for (const auto& [name, p] : up_)
    if (name != l.who.name && p.relay.empty() && p.role == transport::peer_role::node &&
        (best == nullptr || rank(p) < rank(*best)))
      best = &p;
  return best;
}

void link_prober::ask_relay(link& l, std::uint64_t now_us, prober_effects& out) {
  l.relay_at_us = now_us + lost_dial_us;
  const auto* relay = next_relay(l);
  if (relay == nullptr)
    return unreachable(l, "neither can dial the other, and nobody is there to relay", out);
  l.relay = relay->name;
  ++l.relays_tried[relay->name];
  out.emplace_back(dial_through{relay->id, l.who.name, l.who.incarnation});
}

// Only the coordinator is given up: of two agents only the way to the relay is known here, not the
// way from there. Whether the agent reaches the other end shows when it is asked; if not, the link
// is the coordinator's again a moment later.
bool link_prober::worth_moving(const link& l, std::uint64_t now_us) const {
  if (l.relay.empty() || l.relay != last_relay_ || own_ > l.who.name || now_us < l.move_at_us)
    return false;
  const auto* relay = next_relay(l);
  return relay != nullptr && relay->name != last_relay_;
}

void link_prober::unreachable(link& l, const std::string& why, prober_effects& out) {
  if (l.told_unreachable || own_ > l.who.name)
    return; // the side that dials first speaks for the pair
  l.told_unreachable = true;
  l.measured = false;
  l.last = {l.who.name, l.kind, 0, 0, false, why, {}};
  out.emplace_back(l.last);
}

void link_prober::next_probe(link& l, std::uint64_t now_us, prober_effects& out) {
  if (l.peer == 0)
    return;
  if (l.done >= small_probes + big_probes) {
    finish(l, now_us, out);
    return;
  }
  l.probe = next_id_++;
  l.sent_us = now_us;
  out.emplace_back(send_probe{l.peer, l.probe, l.done < small_probes ? 0 : ballast_bytes});
}

prober_effects link_prober::probe_reply(transport::peer_id peer, std::uint64_t id,
                                        std::uint64_t at_us) {
  prober_effects out;
  for (auto& [name, l] : links_) {
    if (l.peer != peer || l.probe != id || id == 0)
      continue;
    const auto took = std::max<std::uint64_t>(1, at_us - std::min(at_us, l.sent_us));
    auto& best = l.done < small_probes ? l.best_small_us : l.best_big_us;
    best = best == 0 ? took : std::min(best, took);
    l.probe = 0;
    ++l.done;
    next_probe(l, at_us, out);
  }
  return out;
}

void link_prober::finish(link& l, std::uint64_t now_us, prober_effects& out) {
  const double small = static_cast<double>(l.best_small_us);
  const double big = std::max(1.0, static_cast<double>(l.best_big_us) - small);
  link_result now{l.who.name, l.kind, small / 2, ballast_bytes * 8.0 / big / 1e3,
                  true,       {},     l.relay};
  if (l.measured && l.last.kind == l.kind &&
      l.last.relay == l.relay) { // one round among many: a busy minute moves no plan
    now.latency_us = std::midpoint(l.last.latency_us, now.latency_us);
    now.bandwidth_gbps = std::midpoint(l.last.bandwidth_gbps, now.bandwidth_gbps);
  }
  l.last = std::move(now);
  l.measured = true;
  l.told_unreachable = false;
  l.next_round_us = now_us + again_us;
  out.emplace_back(l.last);
}

prober_effects link_prober::tick(std::uint64_t now_us,
                                 const std::function<bool(const std::string&)>& in_use) {
  prober_effects out;
  for (auto& [name, l] : links_) {
    if (l.peer == 0) {
      if (now_us >= l.dial_at_us && !l.who.address.empty()) {
        l.dial_at_us = now_us + lost_dial_us;
        out.emplace_back(dial_peer{l.who.address});
      }
      if (own_ < name && now_us >= l.relay_at_us)
        ask_relay(l, now_us, out);
      continue;
    }
    if (l.probe != 0 && now_us > l.sent_us + probe_limit_us) {
      l.probe = 0; // lost or very slow: this round is tried again
      l.done = 0;
      next_probe(l, now_us, out);
    } else if (l.probe == 0 && l.measured && now_us >= l.next_round_us && worth_moving(l, now_us) &&
               !(in_use && in_use(name))) {
      l.move_at_us = now_us + move_again_us;
      l.next_round_us = now_us + again_us; // until it has ended
      out.emplace_back(hang_up{l.peer});
    } else if (l.probe == 0 && l.measured && now_us >= l.next_round_us) {
      l.done = 0;
      l.best_small_us = l.best_big_us = 0;
      next_probe(l, now_us, out);
    }
  }
  return out;
}

std::vector<link_result> link_prober::results() const {
  std::vector<link_result> out;
  for (const auto& [name, l] : links_)
    if (l.measured || l.told_unreachable)
      out.push_back(l.last);
  return out;
}

} // namespace hexgen::actors
