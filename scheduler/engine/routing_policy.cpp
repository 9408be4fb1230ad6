#include "scheduler/engine/routing_policy.hpp"

#include <algorithm>

namespace hexgen::scheduler {

routing_policy::routing_policy(routing_options options) : options_(options) {}

std::optional<std::size_t> routing_policy::pick(std::span<const routing_candidate> candidates,
                                                std::span<const token> prompt,
                                                std::uint64_t output) {
  if (candidates.empty())
    return std::nullopt;
  const std::uint64_t tokens = prompt.size() + output;
  // Seconds until the replica would be through with everything, this request included, of which it
  // need not compute what it has.
  const auto load = [&](const routing_candidate& c, std::uint64_t cached = 0) {
    return static_cast<double>(c.outstanding_tokens + tokens - cached) / std::max(c.capacity, 1e-6);
  };
  const auto has_room = [&](const routing_candidate& c) {
    return c.kv_tokens == 0 || c.held_tokens + tokens <= c.kv_tokens;
  };
  const bool any_room = std::any_of(candidates.begin(), candidates.end(), has_room);
  std::optional<std::size_t> least;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (any_room && !has_room(candidates[i]))
      continue;
    if (!least || load(candidates[i]) < load(candidates[*least]))
      least = i;
  }
  // The longest remembered prefix decides, as long as its home is not much busier.
  const double most = load(candidates[*least]) * options_.load_cap + options_.load_slack_s;
  std::size_t chosen = *least;
  std::uint64_t parent = prefix_index::root;
  for (int b = 0; b < options_.prefix_blocks; ++b) {
    const std::size_t from = static_cast<std::size_t>(b) * kv_block_tokens;
    if (from + kv_block_tokens > prompt.size())
      break;
    parent = chain_hash(options_.key, parent, prompt.subspan(from, kv_block_tokens));
    const auto home = homes_.find(parent);
    if (home == homes_.end())
      break;
    for (std::size_t i = 0; i < candidates.size(); ++i)
      if (candidates[i].replica == home->second.replica &&
          load(candidates[i], from + kv_block_tokens) <= most &&
          (!any_room || has_room(candidates[i])))
        chosen = i;
  }
  remember(prompt, candidates[chosen].replica);
  return chosen;
}

void routing_policy::remember(std::span<const token> prompt, std::uint64_t replica) {
  std::uint64_t parent = prefix_index::root;
  for (int b = 0; b < options_.prefix_blocks; ++b) {
    const std::size_t from = static_cast<std::size_t>(b) * kv_block_tokens;
    if (from + kv_block_tokens > prompt.size())
      break;
    parent = chain_hash(options_.key, parent, prompt.subspan(from, kv_block_tokens));
    const auto [it, is_new] = homes_.try_emplace(parent);
    if (!is_new)
      used_.erase(it->second.used);
    it->second = {replica, used_.insert(used_.end(), parent)};
  }
  while (homes_.size() > options_.remembered_prefixes) {
    homes_.erase(used_.front());
    used_.pop_front();
  }
}

void routing_policy::forget(std::uint64_t replica) {
  std::erase_if(used_, [&](std::uint64_t hash) {
    const auto it = homes_.find(hash);
    if (it->second.replica != replica)
      return false;
    homes_.erase(it);
    return true;
  });
}

} // namespace hexgen::scheduler
