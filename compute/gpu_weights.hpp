// How matrices lie in a GPU's memory.
#pragma once

#include <cstdint>

namespace hexgen::compute {

/// fp8: e4m3 with a power of two a row. int4: 4 bits, and a scale and a minimum for every group
/// (compute/int4_groups.hpp), where columns are whole lines; other matrices then stay bf16.
enum class gpu_weights : std::uint8_t { bf16, fp8, int4 };

/// Values of an int4 matrix's row that share a scale and a minimum.
inline constexpr int int4_group = 32;
/// Rows are whole lines: 128 bytes of codes.
inline constexpr int int4_line = 256;

} // namespace hexgen::compute
