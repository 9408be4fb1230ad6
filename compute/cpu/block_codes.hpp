// One block of 32 weights of any quantised type as unsigned codes and scale parameters.
#pragma once

#include "compute/cpu/matrix.hpp"

#include <array>

namespace hexgen::compute {

struct packing {
  code_kind codes;
  scale_kind scales;
  int zero;
};

/// How a tensor of `type` is packed.
[[nodiscard]] packing packing_of(tensor_type type);

struct block_codes {
  std::array<std::uint8_t, block_columns> codes{};
  std::uint16_t scale = 0;   // f16 bits: the scale, or d
  std::uint16_t minimum = 0; // f16 bits: the minimum, or -dmin
  std::uint8_t factor[2]{};  // K-quants: factors as scale_kind says
};

/// Block `index` (of 32 columns) of a row that starts at `row`.
[[nodiscard]] block_codes read_block(tensor_type type, const std::byte* row, std::int64_t index);

} // namespace hexgen::compute
