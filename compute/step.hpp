// One iteration of a replica: which sequences, how many tokens of each, which KV blocks.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace hexgen::compute {

inline constexpr int block_tokens = 16; // positions of one KV block

/// In a step's ids, for the last token of an entry: what its sequence was last given, which whoever
/// formed the step did not know yet.
inline constexpr std::int32_t unknown_token = -1;

/// A run of consecutive tokens of one sequence.
struct step_entry {
  std::uint64_t sequence = 0;        // unique within the replica's generation
  std::int32_t position = 0;         // position of the first token of the run
  std::int32_t tokens = 0;           // length of the run, >= 1
  std::int32_t logits = 0;           // logits are wanted for the last `logits` tokens of the run
  std::vector<std::uint32_t> blocks; // block table: covers positions [0, position + tokens)
};

struct step {
  std::vector<step_entry> entries;
  /// Copy-on-write, done before anything else: KV block first -> second.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> copies;

  [[nodiscard]] std::int32_t tokens() const {
    std::int32_t n = 0;
    for (const auto& e : entries)
      n += e.tokens;
    return n;
  }
  [[nodiscard]] std::int32_t logit_rows() const {
    std::int32_t n = 0;
    for (const auto& e : entries)
      n += e.logits;
    return n;
  }
};

} // namespace hexgen::compute
