// Four bits a weight, a scale and a minimum for every 32: how a GPU keeps matrices with
// `weights=int4`, laid out as its tensor cores take them.
#pragma once

#include "compute/gpu_weights.hpp"
#include "compute/model_file.hpp"

#include <cstdint>

namespace hexgen::compute {

/// A value is scale * code + minimum, both f16.
/// Columns [column, column + columns) of a row to `codes` [columns / 2] and `scales` [columns / 32]
/// pairs (scale, minimum); all multiples of 32, `columns` of int4_line. Q4_0 and Q4_1 exactly, Q4_K
/// with its products of two factors rounded to f16; other types are scaled to the range of each
/// group and rounded to nearest. Half a line's 4 groups lie together: value 8 t + 2 p (+ 1) of
/// group j in word j of 16-byte piece t, at bit 4 p (+ 16).
void pack_int4(tensor_type type, const std::byte* row, std::int64_t all_columns,
               std::int64_t column, std::int64_t columns, std::uint8_t* codes,
               std::uint16_t* scales);

/// What was packed, in float32.
void unpack_int4(const std::uint8_t* codes, const std::uint16_t* scales, std::int64_t columns,
                 float* out);

} // namespace hexgen::compute
