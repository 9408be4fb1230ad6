// A step laid out token by token, after it was checked.
#pragma once

#include "compute/step.hpp"

#include <cstdint>
#include <vector>

namespace hexgen::compute {

struct step_limits {
  std::int32_t tokens = 0;
  std::int32_t logit_rows = 0;
  std::uint32_t blocks = 0;
};

struct step_row {
  const step_entry* entry = nullptr;
  std::int32_t position = 0;
};

struct step_rows {
  std::vector<step_row> tokens;
  std::vector<std::int32_t> logits; // rows whose logits are wanted, in order
};

/// Throws std::invalid_argument when a count, a position or a block id is out of bounds. `step`
/// outlives the result.
[[nodiscard]] step_rows lay_out(const step& s, const step_limits& limits);

} // namespace hexgen::compute
