// Floats to every tensor_type, simply: for synthetic models, not for shipping weights.
#pragma once

#include "compute/model_file.hpp"

namespace hexgen::compute {

/// One row of `columns` finite values to row_bytes(type, columns) bytes. Each block is scaled to
/// the range of its own values and rounded to nearest; no search for better scales.
/// `columns` must be whole blocks (std::invalid_argument).
void quantize_row(tensor_type type, const float* row, std::int64_t columns, std::byte* out);

} // namespace hexgen::compute
