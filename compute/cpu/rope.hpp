// Rotary position embedding: frequencies made once in double, one row of cosines and sines per
// position of a step.
#pragma once

#include "compute/model_config.hpp"

#include <cstdint>
#include <vector>

namespace hexgen::compute {

class rope_table {
public:
  /// Frequencies after the config's scaling (as transformers computes them, in double).
  explicit rope_table(const model_config& config);
  /// head_dim / 2.
  [[nodiscard]] int pairs() const { return static_cast<int>(frequencies_.size()); }
  /// Writes pairs() cosines, then pairs() sines of `position`.
  void fill(std::int32_t position, float* row) const;

private:
  std::vector<double> frequencies_; // radians per position
  double magnitude_ = 1;            // YaRN's attention factor
};

} // namespace hexgen::compute
