#include "compute/cpu/block_codes.hpp"

#include <cstring>
#include <stdexcept>

namespace hexgen::compute {

namespace {

constexpr int half_block = block_columns / 2;

std::uint8_t byte_at(const std::byte* p) {
  return std::to_integer<std::uint8_t>(*p);
}

std::uint16_t half_at(const std::byte* p) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

void read_nibbles(const std::byte* p, block_codes& out) {
  for (int i = 0; i < half_block; ++i) {
    out.codes[i] = byte_at(p + i) & 15;
    out.codes[i + half_block] = byte_at(p + i) >> 4;
  }
}

void read_fifth_bits(const std::byte* p, block_codes& out) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, p, sizeof bits);
  for (int i = 0; i < block_columns; ++i)
    out.codes[i] |= static_cast<std::uint8_t>((bits >> i & 1U) << 4);
}

/// The 6-bit factor and minimum of sub-block `s` of Q4_K and Q5_K.
void read_super_factors(const std::byte* p, int s, block_codes& out) {
  if (s < 4) {
    out.factor[0] = byte_at(p + s) & 63;
    out.factor[1] = byte_at(p + s + 4) & 63;
    return;
  }
  const auto shared = byte_at(p + s + 4);
  out.factor[0] = static_cast<std::uint8_t>((shared & 15) | (byte_at(p + s - 4) >> 6 << 4));
  out.factor[1] = static_cast<std::uint8_t>((shared >> 4) | (byte_at(p + s) >> 6 << 4));
}

block_codes read_q4_k_or_q5_k(const std::byte* super, int s, bool fifth) {
  constexpr std::uint16_t sign = 0x8000;
  block_codes out;
  out.scale = half_at(super);
  out.minimum = half_at(super + 2) ^ sign;
  read_super_factors(super + 4, s, out);
  const std::byte* high = super + 16;
  const std::byte* low = high + (fifth ? 32 : 0) + s / 2 * 32;
  for (int i = 0; i < block_columns; ++i) {
    const auto pair = byte_at(low + i);
    out.codes[i] = s % 2 == 0 ? pair & 15 : pair >> 4;
    if (fifth)
      out.codes[i] |= static_cast<std::uint8_t>((byte_at(high + i) >> s & 1) << 4);
  }
  return out;
}

block_codes read_q6_k(const std::byte* super, int s) {
  const int half = s / 4; // 128 columns each
  const int quarter = s % 4;
  const std::byte* low = super + 64 * half + 32 * (quarter % 2);
  const std::byte* high = super + 128 + 32 * half;
  const std::byte* factors = super + 192 + 8 * half + 2 * quarter;
  block_codes out;
  out.scale = half_at(super + 208);
  out.factor[0] = byte_at(factors);
  out.factor[1] = byte_at(factors + 1);
  for (int i = 0; i < block_columns; ++i) {
    const auto pair = byte_at(low + i);
    const auto upper = byte_at(high + i) >> (2 * quarter) & 3;
    out.codes[i] = static_cast<std::uint8_t>((quarter < 2 ? pair & 15 : pair >> 4) | upper << 4);
  }
  return out;
}

} // namespace

packing packing_of(tensor_type type) {
  switch (type) {
  case tensor_type::f32:
    return {code_kind::f32, scale_kind::none, 0};
  case tensor_type::f16:
    return {code_kind::f16, scale_kind::none, 0};
  case tensor_type::bf16:
    return {code_kind::bf16, scale_kind::none, 0};
  case tensor_type::q8_0:
    return {code_kind::byte, scale_kind::half, 128};
  case tensor_type::q4_0:
    return {code_kind::nibble, scale_kind::half, 8};
  case tensor_type::q4_1:
    return {code_kind::nibble, scale_kind::half_min, 0};
  case tensor_type::q5_0:
    return {code_kind::byte, scale_kind::half, 16};
  case tensor_type::q5_1:
    return {code_kind::byte, scale_kind::half_min, 0};
  case tensor_type::iq4_nl:
    return {code_kind::nibble_table, scale_kind::half, 128};
  case tensor_type::q4_k:
    return {code_kind::nibble, scale_kind::super_min, 0};
  case tensor_type::q5_k:
    return {code_kind::byte, scale_kind::super_min, 0};
  case tensor_type::q6_k:
    return {code_kind::byte, scale_kind::super_pair, 32};
  }
  throw std::invalid_argument("packing_of: unknown tensor type");
}

block_codes read_block(tensor_type type, const std::byte* row, std::int64_t index) {
  block_codes out;
  switch (type) {
  case tensor_type::q8_0: {
    const std::byte* p = row + index * 34;
    out.scale = half_at(p);
    for (int i = 0; i < block_columns; ++i)
      out.codes[i] = byte_at(p + 2 + i) ^ 0x80; // -128..127 to 0..255
    return out;
  }
  case tensor_type::q4_0:
  case tensor_type::iq4_nl: {
    const std::byte* p = row + index * 18;
    out.scale = half_at(p);
    read_nibbles(p + 2, out);
    return out;
  }
  case tensor_type::q4_1: {
    const std::byte* p = row + index * 20;
    out.scale = half_at(p);
    out.minimum = half_at(p + 2);
    read_nibbles(p + 4, out);
    return out;
  }
  case tensor_type::q5_0: {
    const std::byte* p = row + index * 22;
    out.scale = half_at(p);
    read_nibbles(p + 6, out);
    read_fifth_bits(p + 2, out);
    return out;
  }
  case tensor_type::q5_1: {
    const std::byte* p = row + index * 24;
    out.scale = half_at(p);
    out.minimum = half_at(p + 2);
    read_nibbles(p + 8, out);
    read_fifth_bits(p + 4, out);
    return out;
  }
  case tensor_type::q4_k:
    return read_q4_k_or_q5_k(row + index / 8 * 144, static_cast<int>(index % 8), false);
  case tensor_type::q5_k:
    return read_q4_k_or_q5_k(row + index / 8 * 176, static_cast<int>(index % 8), true);
  case tensor_type::q6_k:
    return read_q6_k(row + index / 8 * 210, static_cast<int>(index % 8));
  case tensor_type::f32:
  case tensor_type::f16:
  case tensor_type::bf16:
    break;
  }
  throw std::invalid_argument("read_block: not a quantised type");
}

} // namespace hexgen::compute
