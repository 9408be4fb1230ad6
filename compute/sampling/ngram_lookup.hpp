// Draft tokens from the text itself: what followed the last few tokens when they came before.
#pragma once

#include "compute/tokenizer.hpp"

#include <span>
#include <vector>

namespace hexgen::compute {

/// How far a look-up goes.
struct ngram_lookup_limits {
  int max_match = 3; // tokens of the longest run that is looked for
  int min_match = 1; // and of the shortest
  int max_draft = 8; // draft tokens
};

/// Up to `max_draft` ids that followed the latest earlier occurrence of the last `max_match` ids of
/// `sequence` (prompt and output), or of fewer, down to `min_match`. Empty when none occurred
/// before. Pure; O(sequence x (max_match - min_match + 1)).
[[nodiscard]] std::vector<token_id> ngram_draft(std::span<const token_id> sequence,
                                                const ngram_lookup_limits& limits);

} // namespace hexgen::compute
