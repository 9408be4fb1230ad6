#include "transport/relay_desk.hpp"

#include <algorithm>

namespace hexgen::transport {

std::optional<relay_desk::offer> relay_desk::open(const end& a, const end& b,
                                                  std::uint64_t now_ms) {
  for (auto i = pairs_.begin(); i != pairs_.end();) {
    const auto& ends = i->second.ends;
    const bool same = (ends[0] == a && ends[1] == b) || (ends[0] == b && ends[1] == a);
    if (same)
      replaced_.push_back(i->first);
    i = same ? pairs_.erase(i) : std::next(i);
  }
  if (pairs_.size() >= most_pairs_)
    return std::nullopt;
  offer out{next_++, {draw_(), draw_()}};
  pairs_[out.pair] = {{a, b}, out.tickets, now_ms + claim_ms, false};
  return out;
}

std::optional<relay_desk::claimed> relay_desk::claim(const std::string& ticket,
                                                     std::uint64_t now_ms) {
  if (ticket.empty())
    return std::nullopt;
  for (auto& [id, e] : pairs_) {
    const auto mine = std::find(e.tickets.begin(), e.tickets.end(), ticket);
    if (mine == e.tickets.end() || now_ms >= e.until_ms)
      continue;
    mine->clear();
    const bool both = e.tickets[0].empty() && e.tickets[1].empty();
    if (both)
      e.until_ms = now_ms + silent_ms;
    return claimed{id, static_cast<std::size_t>(mine - e.tickets.begin()), both};
  }
  return std::nullopt;
}

void relay_desk::moved(pair_id pair, std::uint64_t now_ms) {
  if (const auto i = pairs_.find(pair); i != pairs_.end() && !i->second.closing)
    i->second.until_ms = now_ms + silent_ms;
}

void relay_desk::half_closed(pair_id pair, std::uint64_t now_ms) {
  if (const auto i = pairs_.find(pair); i != pairs_.end() && !i->second.closing) {
    i->second.closing = true;
    i->second.until_ms = now_ms + linger_ms;
  }
}

void relay_desk::closed(pair_id pair) {
  pairs_.erase(pair);
}

std::vector<relay_desk::pair_id> relay_desk::due(std::uint64_t now_ms) {
  std::vector<pair_id> out = std::exchange(replaced_, {});
  for (auto i = pairs_.begin(); i != pairs_.end();) {
    const bool over = now_ms >= i->second.until_ms;
    if (over)
      out.push_back(i->first);
    i = over ? pairs_.erase(i) : std::next(i);
  }
  return out;
}

} // namespace hexgen::transport
