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
/// Weights are rounded to multiples of 2^-32 of the largest, so that their sums are exact in
/// double and the same in every order; what rounds to 0 is never drawn.
class token_selector {
public:
  /// The lowest id among the highest; -1 when every token is forbidden.
  [[nodiscard]] static token_id argmax(std::span<const float> logits);
  /// The `count` highest, in order; forbidden tokens are left out.
  static void top(std::span<const float> logits, std::size_t count, std::vector<scored_token>& out);
  /// Draws by `uniform` in [0, 1). min_p applies first, then top_k, then top_p over what is left.
  /// -1 when every token is forbidden. `logits` is overwritten.
  [[nodiscard]] token_id draw(std::span<float> logits, const selection_limits& limits,
                              double uniform);

private:
  [[nodiscard]] token_id draw_from_top(std::span<const float> logits, float highest,
                                       const selection_limits& limits, double uniform);
  void keep_top_p(float top_p);
  [[nodiscard]] token_id draw_weighted(double uniform);

  std::vector<float> weights_; // 0 for tokens that are filtered out
  std::vector<double> sums_;   // of runs of weights
  std::vector<scored_token> candidates_;
  std::vector<double> bucket_sums_;
};

} // namespace hexgen::compute
