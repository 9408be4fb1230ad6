// From logits to one token id: argmax, or a draw from a filtered softmax.
#pragma once

#include "compute/tokenizer.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace hexgen::compute {

struct scored_token {
  float score = 0;
  token_id id = 0;
};

/// Higher scores first, then lower ids.
[[nodiscard]] inline bool ranks_before(const scored_token& a, const scored_token& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

struct selection_limits {
  float temperature = 1; // > 0
  int top_k = 0;         // <= 0: off
  float top_p = 1;       // in (0, 1]
  float min_p = 0;       // in [0, 1]
};

/// Reusable buffers; not thread-safe. Logits are finite, or -infinity where a token is forbidden.
class token_selector {
public:
  /// The lowest id among the highest; -1 when every token is forbidden.
  [[nodiscard]] static token_id argmax(std::span<const float> logits);
  /// The `count` highest, in order; forbidden tokens are left out.
  void top(std::span<const float> logits, std::size_t count, std::vector<scored_token>& out) const;
  /// Draws by `uniform` in [0, 1). min_p applies first, then top_k, then top_p over what is left.
  /// -1 when every token is forbidden. `logits` is overwritten.
  [[nodiscard]] token_id draw(std::span<float> logits, const selection_limits& limits,
                              double uniform);

private:
  [[nodiscard]] token_id draw_sorted(double top_p_mass, double uniform) const;
  void collect(std::span<const float> weights, float min_p, double wanted_mass);
  std::vector<float> weights_;
  std::vector<scored_token> candidates_; // score: the weight
};

} // namespace hexgen::compute
