#include "compute/int4_groups.hpp"

#include "compute/cpu/block_codes.hpp"
#include "compute/files/half.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace hexgen::compute {

namespace {

constexpr int half_line = int4_line / 2;

struct group {
  std::array<std::uint8_t, int4_group> codes{};
  std::uint16_t scale = 0, minimum = 0; // f16
};

group stored_group(tensor_type type, const std::byte* row, std::int64_t index) {
  const auto block = read_block(type, row, index);
  group g;
  g.codes = block.codes;
  const float scale = half_to_float(block.scale);
  switch (type) {
  case tensor_type::q4_0:
    g.scale = block.scale;
    g.minimum = float_to_half(-8 * scale);
    break;
  case tensor_type::q4_1:
    g.scale = block.scale;
    g.minimum = block.minimum;
    break;
  default: // Q4_K
    g.scale = float_to_half(scale * static_cast<float>(block.factor[0]));
    g.minimum = float_to_half(half_to_float(block.minimum) * static_cast<float>(block.factor[1]));
  }
  return g;
}

group rounded_group(const float* values) {
  const auto [least, most] = std::minmax_element(values, values + int4_group);
  group g;
  g.minimum = float_to_half(*least);
  const float minimum = half_to_float(g.minimum);
  g.scale = float_to_half((*most - minimum) / 15);
  const float scale = half_to_float(g.scale);
  for (int i = 0; i < int4_group && scale > 0; ++i)
    g.codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(
        std::clamp(std::nearbyint((values[i] - minimum) / scale), 0.0F, 15.0F));
  return g;
}

/// The byte of half a line that holds value `i` of its group `j`; the high four bits if `high`.
struct place {
  int byte = 0;
  bool high = false;
};
place place_of(int j, int i) {
  const int bit = i % 8 / 2 * 4 + i % 2 * 16;
  return {i / 8 * 16 + j * 4 + bit / 8, bit % 8 == 4};
}

} // namespace

void pack_int4(tensor_type type, const std::byte* row, std::int64_t all_columns,
               std::int64_t column, std::int64_t columns, std::uint8_t* codes,
               std::uint16_t* scales) {
  const bool as_stored =
      type == tensor_type::q4_0 || type == tensor_type::q4_1 || type == tensor_type::q4_k;
  std::vector<float> values;
  if (!as_stored) {
    values.resize(static_cast<std::size_t>(all_columns));
    dequantize_row(type, row, all_columns, values.data());
  }
  std::fill_n(codes, columns / 2, std::uint8_t{0});
  for (std::int64_t at = 0; at < columns; at += int4_group) {
    const auto g = as_stored ? stored_group(type, row, (column + at) / int4_group)
                             : rounded_group(values.data() + column + at);
    *scales++ = g.scale;
    *scales++ = g.minimum;
    auto* half = codes + at / half_line * (half_line / 2);
    const auto j = static_cast<int>(at % half_line / int4_group);
    for (int i = 0; i < int4_group; ++i) {
      const auto to = place_of(j, i);
      const auto code = g.codes[static_cast<std::size_t>(i)];
      half[to.byte] |= static_cast<std::uint8_t>(to.high ? code << 4 : code);
    }
  }
}

void unpack_int4(const std::uint8_t* codes, const std::uint16_t* scales, std::int64_t columns,
                 float* out) {
  for (std::int64_t at = 0; at < columns; at += int4_group) {
    const auto index = 2 * (at / int4_group);
    const float scale = half_to_float(scales[index]);
    const float minimum = half_to_float(scales[index + 1]);
    const auto* half = codes + at / half_line * (half_line / 2);
    const auto j = static_cast<int>(at % half_line / int4_group);
    for (int i = 0; i < int4_group; ++i) {
      const auto from = place_of(j, i);
      const int code = from.high ? half[from.byte] >> 4 : half[from.byte] & 15;
      out[at + i] = scale * static_cast<float>(code) + minimum;
    }
  }
}

} // namespace hexgen::compute
