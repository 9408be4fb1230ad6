#include "compute/sampling/ngram_lookup.hpp"

#include <algorithm>

namespace hexgen::compute {

std::vector<token_id> ngram_draft(std::span<const token_id> sequence,
                                  const ngram_lookup_limits& limits) {
  const auto size = static_cast<std::ptrdiff_t>(sequence.size());
  const auto longest = std::min<std::ptrdiff_t>(limits.max_match, size - 1);
  for (auto n = longest; n >= std::max(limits.min_match, 1); --n) {
    const auto tail = sequence.last(static_cast<std::size_t>(n));
    // The match may overlap the tail but must end before the sequence does.
    for (auto begin = size - n - 1; begin >= 0; --begin) {
      const auto run = sequence.subspan(static_cast<std::size_t>(begin));
      if (!std::equal(tail.begin(), tail.end(), run.begin()))
        continue;
      const auto follows = run.subspan(static_cast<std::size_t>(n));
      const auto drafts = std::min<std::size_t>(
          follows.size(), static_cast<std::size_t>(std::max(limits.max_draft, 0)));
      return {follows.begin(), follows.begin() + static_cast<std::ptrdiff_t>(drafts)};
    }
  }
  return {};
}

} // namespace hexgen::compute
