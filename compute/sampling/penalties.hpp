// Repetition, presence and frequency penalties over what was said so far.
#pragma once

#include "compute/tokenizer.hpp"

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace hexgen::compute {

/// Counts tokens and lowers their logits as vLLM does: repetition over prompt and output
/// (positive logits divided, negative ones multiplied), frequency and presence over the output.
class penalty_counts {
public:
  penalty_counts(float repetition, float presence, float frequency);
  void add_prompt(std::span<const token_id> prompt);
  void add_output(token_id id);
  /// Forbidden tokens (-infinity) stay so; all others stay finite.
  void apply(std::span<float> logits) const;
  /// Whether apply() may change anything.
  [[nodiscard]] bool active() const;

private:
  struct seen {
    token_id id = 0;
    std::uint32_t outputs = 0;
  };
  seen& entry(token_id id);
  float repetition_, presence_, frequency_;
  std::vector<seen> seen_;
  std::unordered_map<token_id, std::size_t> places_; // id to index of seen_
};

} // namespace hexgen::compute
