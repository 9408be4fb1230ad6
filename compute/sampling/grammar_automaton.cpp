#include "compute/sampling/grammar_automaton.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace hexgen::compute {

namespace {

constexpr std::int32_t unknown = -2;
constexpr std::int32_t bottom = 0;            // the frame under the root rule
constexpr std::int32_t max_frames_deep = 400; // about 130 nested arrays or objects
constexpr std::size_t max_places = 2000;      // readings of one text; more count as none
constexpr std::size_t max_sets = 8192;        // about 1 KiB each
constexpr std::size_t max_masks = 512;        // 6 to 19 KiB each

} // namespace

grammar_automaton::grammar_automaton(byte_grammar grammar, std::shared_ptr<const tokenizer> tokens)
    : grammar_(std::move(grammar)), tokens_(std::move(tokens)), trie_(token_trie::of(tokens_)) {
  frames_.push_back({-1, -1, 0});
}

std::size_t grammar_automaton::places_hash::operator()(const std::vector<place>& places) const {
  std::uint64_t h = 0xCBF29CE484222325ULL;
  for (const auto& p : places) {
    h = (h ^ static_cast<std::uint32_t>(p.state)) * 0x100000001B3ULL;
    h = (h ^ static_cast<std::uint32_t>(p.frame)) * 0x100000001B3ULL;
  }
  return static_cast<std::size_t>(h ^ h >> 29U);
}

void grammar_automaton::sweep() {
  if (sets_.size() < max_sets)
    return;
  ++epoch_;
  frames_.resize(1);
  frame_ids_.clear();
  sets_.clear();
  for (auto& ids : set_ids_)
    ids.clear();
  masks_.clear();
}

std::int32_t grammar_automaton::push_frame(byte_grammar::state_id back, std::int32_t parent) {
  const auto key = static_cast<std::uint64_t>(static_cast<std::uint32_t>(back)) << 32U |
                   static_cast<std::uint32_t>(parent);
  const auto [at, added] = frame_ids_.try_emplace(key, static_cast<std::int32_t>(frames_.size()));
  if (added)
    frames_.push_back({back, parent, frames_[static_cast<std::size_t>(parent)].depth + 1});
  return at->second;
}

// All places that the seeds lead to without taking a byte.
grammar_automaton::set_id grammar_automaton::intern(std::vector<place> seeds) {
  struct place_hash {
    std::size_t operator()(const place& p) const {
      return (static_cast<std::size_t>(static_cast<std::uint32_t>(p.state)) << 32U |
              static_cast<std::uint32_t>(p.frame)) *
                 0x9E3779B97F4A7C15ULL >>
             13U;
    }
  };
  std::unordered_set<place, place_hash> seen(seeds.begin(), seeds.end());
  std::vector<place> kept;
  bool accepting = false;
  const auto reach = [&](place p) {
    if (seen.insert(p).second)
      seeds.push_back(p);
  };
  while (!seeds.empty()) {
    if (seen.size() > 8 * max_places)
      return dead;
    const auto p = seeds.back();
    seeds.pop_back();
    const auto& s = grammar_.at(p.state);
    if (!s.bytes.empty())
      kept.push_back(p);
    for (const auto to : s.empty)
      reach({to, p.frame});
    if (s.ends_rule) {
      if (p.frame == bottom)
        accepting = true;
      else
        reach({frames_[static_cast<std::size_t>(p.frame)].back,
               frames_[static_cast<std::size_t>(p.frame)].parent});
    }
    if (!s.calls.empty() && frames_[static_cast<std::size_t>(p.frame)].depth < max_frames_deep)
      for (const auto& c : s.calls)
        reach({grammar_.rule_at(c.rule).start, push_frame(c.back, p.frame)});
  }
  if ((kept.empty() && !accepting) || kept.size() > max_places)
    return dead;
  std::sort(kept.begin(), kept.end());
  auto& ids = set_ids_[accepting ? 1 : 0];
  const auto [at, added] = ids.try_emplace(kept, static_cast<set_id>(sets_.size()));
  if (added) {
    auto set = std::make_unique<place_set>();
    set->places = std::move(kept);
    set->accepting = accepting;
    set->next.fill(unknown);
    sets_.push_back(std::move(set));
  }
  return at->second;
}

grammar_automaton::set_id grammar_automaton::start() {
  return intern({{grammar_.rule_at(grammar_.root()).start, bottom}});
}

grammar_automaton::set_id grammar_automaton::step(set_id from, std::uint8_t byte) {
  if (from == dead)
    return dead;
  const auto known = sets_[static_cast<std::size_t>(from)]->next[byte];
  if (known != unknown)
    return known;
  std::vector<place> seeds;
  for (const auto& p : sets_[static_cast<std::size_t>(from)]->places)
    for (const auto& edge : grammar_.at(p.state).bytes)
      if (byte >= edge.low && byte <= edge.high)
        seeds.push_back({edge.to, p.frame});
  std::sort(seeds.begin(), seeds.end());
  seeds.erase(std::unique(seeds.begin(), seeds.end()), seeds.end());
  const auto to = seeds.empty() ? dead : intern(std::move(seeds));
  sets_[static_cast<std::size_t>(from)]->next[byte] = to;
  return to;
}

bool grammar_automaton::accepting(set_id id) const {
  return id != dead && sets_[static_cast<std::size_t>(id)]->accepting;
}

const grammar_automaton::mask_bits& grammar_automaton::mask(set_id id) {
  if (const auto at = masks_.find(id); at != masks_.end())
    return at->second;
  if (masks_.size() >= max_masks)
    masks_.clear();
  mask_bits bits((static_cast<std::size_t>(tokens_->vocab()) + 63) / 64, 0);
  const auto set = [&](token_id token) {
    bits[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (token % 64);
  };
  // One pass over the trie; after[d]: the state behind the current path's first d bytes.
  std::vector<set_id> after(trie_->max_depth() + 1, dead);
  after[0] = id;
  const auto nodes = trie_->nodes();
  for (std::size_t i = 0; i < trie_->size() && id != dead;) {
    const auto& n = nodes[i];
    const auto from = after[n.depth - 1U];
    auto to = sets_[static_cast<std::size_t>(from)]->next[n.byte];
    if (to == unknown)
      to = step(from, n.byte);
    if (to == dead) {
      i = n.skip;
      continue;
    }
    after[n.depth] = to;
    for (auto t = n.tokens; t < nodes[i + 1].tokens; ++t)
      set(trie_->token(t));
    ++i;
  }
  if (accepting(id))
    for (const auto end : tokens_->end_ids())
      if (end >= 0 && end < tokens_->vocab())
        set(end);
  return masks_.emplace(id, std::move(bits)).first->second;
}

} // namespace hexgen::compute
