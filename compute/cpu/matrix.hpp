// Weights as the kernels read them: rows across the lanes.
#pragma once

#include "compute/cpu/arena.hpp"
#include "compute/model_file.hpp"

#include <cstddef>
#include <cstdint>

namespace hexgen::compute {

inline constexpr int lane_rows = 16;     // rows of a group, one per lane
inline constexpr int block_columns = 32; // columns that share a scale and one integer dot

/// How a packed matrix holds its values. A quantised value is scale * (code - zero) + minimum.
enum class code_kind : std::uint8_t {
  f32,
  f16,
  bf16,
  nibble,       // 4-bit codes
  nibble_table, // 4-bit indices into IQ4_NL's table, moved up by 128
  byte          // 8-bit codes
};

/// What follows a block's codes, per lane.
enum class scale_kind : std::uint8_t {
  none,
  half,      // f16 scale
  half_min,  // f16 scale, f16 minimum
  super_min, // f16 d, f16 -dmin, u8 factor of d, u8 factor of -dmin (Q4_K, Q5_K)
  super_pair // f16 d, i8 factor for columns 0-15, i8 factor for columns 16-31 (Q6_K)
};

/// A packed matrix. Row group g is the bytes from g * group_bytes:
///  floats      [columns][16 rows]
///  quantised   [blocks][words][16 rows] 4-byte words of codes, then [blocks] scales. Word j holds
///              columns 4j..4j+3; of nibbles, the low ones, and columns 16+4j.. in the high ones.
/// Rows past `rows` are zero. The memory belongs to the arena it was packed into.
struct matrix_view {
  const std::byte* data = nullptr;
  std::size_t group_bytes = 0;
  std::size_t scales_offset = 0; // within a group
  int rows = 0;
  int columns = 0;
  code_kind codes = code_kind::f32;
  scale_kind scales = scale_kind::none;
  int zero = 0;

  [[nodiscard]] int groups() const { return (rows + lane_rows - 1) / lane_rows; }
  [[nodiscard]] int blocks() const { return columns / block_columns; }
  [[nodiscard]] bool quantised() const { return scales != scale_kind::none; }
};

/// Which part of a tensor to pack.
struct tensor_slice {
  std::int64_t row_begin = 0, row_end = 0;
  std::int64_t column_begin = 0, column_end = 0;
};

/// Bytes of one group's codes and scales per block.
[[nodiscard]] std::size_t code_bytes(code_kind kind);
[[nodiscard]] std::size_t scale_bytes(scale_kind kind);

/// Packs a slice into `memory` (or only counts it). `as_f32` dequantises. A quantised tensor needs
/// a slice that is cut at 32 columns. Throws std::invalid_argument when the slice is not within the
/// tensor.
[[nodiscard]] matrix_view pack_matrix(const tensor_view& tensor, const tensor_slice& slice,
                                      bool as_f32, arena& memory);

} // namespace hexgen::compute
