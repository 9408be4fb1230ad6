#include "compute/cpu/matrix.hpp"

#include "compute/cpu/block_codes.hpp"

#include <cstring>
#include <stdexcept>
#include <vector>

namespace hexgen::compute {

namespace {

constexpr std::size_t word = 4; // bytes of codes per lane that are loaded together

std::size_t float_bytes(code_kind kind) {
  return kind == code_kind::f32 ? 4 : 2;
}

/// Every value of a row, `size` bytes each, to its lane of the group.
void scatter_row(const std::byte* values, std::size_t size, int columns, int lane,
                 std::byte* group) {
  for (int k = 0; k < columns; ++k)
    std::memcpy(group + (static_cast<std::size_t>(k) * lane_rows + lane) * size, values + k * size,
                size);
}

void pack_float_row(const tensor_view& tensor, const std::byte* row, const tensor_slice& slice,
                    const matrix_view& m, int lane, std::byte* group, std::vector<float>& scratch) {
  const std::size_t size = float_bytes(m.codes);
  if (m.codes == code_kind::f32 && tensor.type != tensor_type::f32) {
    scratch.resize(static_cast<std::size_t>(tensor.columns));
    dequantize_row(tensor.type, row, tensor.columns, scratch.data());
    row = reinterpret_cast<const std::byte*>(scratch.data());
  }
  scatter_row(row + slice.column_begin * size, size, m.columns, lane, group);
}

void store_codes(const block_codes& block, code_kind kind, int lane, std::byte* out) {
  const std::size_t words = code_bytes(kind) / (word * lane_rows);
  for (std::size_t j = 0; j < words; ++j)
    for (std::size_t i = 0; i < word; ++i) {
      std::uint8_t code = block.codes[word * j + i];
      if (kind != code_kind::byte)
        code |= static_cast<std::uint8_t>(block.codes[block_columns / 2 + word * j + i] << 4);
      out[(j * lane_rows + lane) * word + i] = std::byte{code};
    }
}

void store_scales(const block_codes& block, scale_kind kind, int lane, std::byte* out) {
  constexpr std::size_t halves = lane_rows * sizeof(std::uint16_t);
  const auto put_half = [&](std::size_t offset, std::uint16_t bits) {
    std::memcpy(out + offset + lane * sizeof bits, &bits, sizeof bits);
  };
  put_half(0, block.scale);
  if (kind == scale_kind::half_min || kind == scale_kind::super_min)
    put_half(halves, block.minimum);
  const std::size_t factors = kind == scale_kind::super_min    ? 2 * halves
                              : kind == scale_kind::super_pair ? halves
                                                               : 0;
  if (factors != 0) {
    out[factors + lane] = std::byte{block.factor[0]};
    out[factors + lane_rows + lane] = std::byte{block.factor[1]};
  }
}

void check(const tensor_view& t, const tensor_slice& s, bool quantised) {
  const bool inside = 0 <= s.row_begin && s.row_begin <= s.row_end && s.row_end <= t.rows &&
                      0 <= s.column_begin && s.column_begin <= s.column_end &&
                      s.column_end <= t.columns;
  const bool on_blocks =
      !quantised || (s.column_begin % block_columns == 0 && s.column_end % block_columns == 0);
  if (!inside || !on_blocks)
    throw std::invalid_argument("pack_matrix: bad slice of " + std::string(t.name));
}

} // namespace

std::size_t code_bytes(code_kind kind) {
  switch (kind) {
  case code_kind::nibble:
  case code_kind::nibble_table:
    return lane_rows * block_columns / 2;
  case code_kind::byte:
    return lane_rows * block_columns;
  default:
    return lane_rows * block_columns * float_bytes(kind);
  }
}

std::size_t scale_bytes(scale_kind kind) {
  switch (kind) {
  case scale_kind::none:
    return 0;
  case scale_kind::half:
    return lane_rows * 2;
  case scale_kind::half_min:
  case scale_kind::super_pair:
    return lane_rows * 4;
  case scale_kind::super_min:
    return lane_rows * 6;
  }
  return 0;
}

matrix_view pack_matrix(const tensor_view& tensor, const tensor_slice& slice, bool as_f32,
                        arena& memory) {
  const packing format = packing_of(as_f32 ? tensor_type::f32 : tensor.type);
  matrix_view m;
  m.rows = static_cast<int>(slice.row_end - slice.row_begin);
  m.columns = static_cast<int>(slice.column_end - slice.column_begin);
  m.codes = format.codes;
  m.scales = format.scales;
  m.zero = format.zero;
  check(tensor, slice, m.quantised());
  if (m.quantised()) {
    m.scales_offset = code_bytes(m.codes) * m.blocks();
    m.group_bytes = m.scales_offset + scale_bytes(m.scales) * m.blocks();
  } else {
    m.group_bytes = float_bytes(m.codes) * lane_rows * m.columns;
  }
  std::byte* data = memory.take(m.group_bytes * m.groups());
  m.data = data;
  if (data == nullptr)
    return m;

  const std::size_t stride = row_bytes(tensor.type, tensor.columns);
  const std::int64_t first_block = slice.column_begin / block_columns;
  std::vector<float> scratch;
  for (int r = 0; r < m.rows; ++r) {
    const std::byte* row = tensor.bytes.data() + (slice.row_begin + r) * stride;
    std::byte* group = data + m.group_bytes * (r / lane_rows);
    const int lane = r % lane_rows;
    if (!m.quantised()) {
      pack_float_row(tensor, row, slice, m, lane, group, scratch);
      continue;
    }
    for (int b = 0; b < m.blocks(); ++b) {
      const auto block = read_block(tensor.type, row, first_block + b);
      store_codes(block, m.codes, lane, group + code_bytes(m.codes) * b);
      store_scales(block, m.scales, lane, group + m.scales_offset + scale_bytes(m.scales) * b);
    }
  }
  return m;
}

} // namespace hexgen::compute
