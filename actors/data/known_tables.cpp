#include "actors/data/known_tables.hpp"

#include <algorithm>

namespace hexgen::actors {

void known_tables::open(const wire::sequence_open& s) {
  auto& mine = sequences_[s.sequence];
  mine.tokens = s.prompt;
  mine.tokens.insert(mine.tokens.end(), s.emitted.begin(), s.emitted.end());
}

void known_tables::begins(const wire::step_message& m) {
  begun_ = m.step;
  for (const auto& [from, to] : m.work.copies)
    written_[to] = m.step;
  for (const auto& e : m.work.entries) {
    for (auto b = e.position / compute::block_tokens;
         b <= (e.position + e.tokens - 1) / compute::block_tokens; ++b)
      written_[e.blocks[static_cast<std::size_t>(b)]] = m.step;
  }
}

void known_tables::ran(const wire::step_message& m) {
  last_step_ = m.step;
  for (const auto& e : m.work.entries) {
    const auto found = sequences_.find(e.sequence);
    if (found == sequences_.end() || m.refill)
      continue;
    found->second.blocks = e.blocks;
    found->second.computed = static_cast<std::size_t>(e.position + e.tokens);
    found->second.step = m.step;
  }
}

void known_tables::sampled(std::uint64_t sequence, compute::token_id id) {
  if (const auto found = sequences_.find(sequence); found != sequences_.end())
    found->second.tokens.push_back(id);
}

std::vector<written_block> known_tables::written_in_last(std::uint64_t steps) const {
  std::vector<written_block> out;
  for (const auto& [block, step] : written_)
    if (step + steps > begun_)
      out.push_back({block, step});
  return out;
}

std::vector<kept_sequence> known_tables::all() const {
  std::vector<kept_sequence> out;
  for (const auto& [id, s] : sequences_) {
    // The last token's KV is not there, and what stands past it is of drafts that did not stand.
    const auto known = std::min(s.computed, s.tokens.empty() ? 0 : s.tokens.size() - 1);
    const auto full = known / compute::block_tokens;
    const auto stale = [&, &s = s](std::uint32_t b) {
      const auto w = written_.find(b);
      return w != written_.end() && w->second > s.step;
    };
    const auto blocks = s.blocks.begin() + static_cast<std::ptrdiff_t>(full);
    if (full == 0 || std::any_of(s.blocks.begin(), blocks, stale))
      continue;
    out.push_back({{s.tokens.begin(),
                    s.tokens.begin() + static_cast<std::ptrdiff_t>(full * compute::block_tokens)},
                   {s.blocks.begin(), blocks}});
  }
  return out;
}

} // namespace hexgen::actors
