#include "compute/files/quantize.hpp"

#include "compute/files/half.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace hexgen::compute {

namespace {

void store_u16(std::uint8_t* to, std::uint16_t value) {
  std::memcpy(to, &value, sizeof value);
}

/// Stores `value` as a half and returns what was stored.
float store_half(std::uint8_t* to, float value) {
  const auto half = float_to_half(value);
  store_u16(to, half);
  return half_to_float(half);
}

/// value / step to the nearest integer in [low, high]; 0 when the step is 0.
int round_to(float value, float step, int low, int high) {
  if (step == 0)
    return std::clamp(0, low, high);
  return std::clamp(static_cast<int>(std::nearbyint(value / step)), low, high);
}

float largest_magnitude(const float* x, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i)
    largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

/// 32 values in 4 or 5 bits: nibbles at `nibbles`, fifth bits at `high` when not null.
template <class Code>
void store_codes(std::uint8_t* nibbles, std::uint8_t* high, Code code) {
  std::uint32_t fifth = 0;
  for (int i = 0; i < 16; ++i) {
    const int a = code(i);
    const int b = code(i + 16);
    nibbles[i] = static_cast<std::uint8_t>((a & 0x0f) | ((b & 0x0f) << 4));
    fifth |= static_cast<std::uint32_t>(a >> 4) << i | static_cast<std::uint32_t>(b >> 4)
                                                           << (i + 16);
  }
  if (high != nullptr)
    std::memcpy(high, &fifth, sizeof fifth);
}

void q8_0(const float* x, std::uint8_t* out) {
  const float d = store_half(out, largest_magnitude(x, 32) / 127);
  for (int i = 0; i < 32; ++i)
    out[2 + i] = static_cast<std::uint8_t>(round_to(x[i], d, -127, 127));
}

/// Codes centred on `zero` (8 or 16).
void centred(const float* x, std::uint8_t* scale, std::uint8_t* nibbles, std::uint8_t* high,
             int zero) {
  const float d = store_half(scale, largest_magnitude(x, 32) / static_cast<float>(zero - 1));
  store_codes(nibbles, high, [&](int i) { return round_to(x[i], d, -zero, zero - 1) + zero; });
}

/// Codes from the block's minimum up to `top` (15 or 31).
void from_minimum(const float* x, std::uint8_t* scales, std::uint8_t* nibbles, std::uint8_t* high,
                  int top) {
  const auto [low, up] = std::minmax_element(x, x + 32);
  const float d = store_half(scales, (*up - *low) / static_cast<float>(top));
  const float m = store_half(scales + 2, *low);
  store_codes(nibbles, high, [&](int i) { return round_to(x[i] - m, d, 0, top); });
}

void iq4_nl(const float* x, std::uint8_t* out) {
  static constexpr int values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
  const float d = store_half(out, largest_magnitude(x, 32) / 113);
  store_codes(out + 2, nullptr, [&](int i) {
    const float target = d == 0 ? 0 : x[i] / d;
    int best = 0;
    for (int code = 1; code < 16; ++code)
      if (std::fabs(static_cast<float>(values[code]) - target) <
          std::fabs(static_cast<float>(values[best]) - target))
        best = code;
    return best;
  });
}

/// The common head of Q4_K and Q5_K: scales, minima and the eight sub-blocks' codes up to `top`.
void k_codes(const float* x, std::uint8_t* out, int top, std::uint8_t (&codes)[256]) {
  float step[8];
  float below[8]; // how far the sub-block's minimum lies below zero
  for (int sub = 0; sub < 8; ++sub) {
    const auto [low, up] = std::minmax_element(x + sub * 32, x + sub * 32 + 32);
    below[sub] = std::max(0.0F, -*low);
    step[sub] = (std::max(*up, 0.0F) + below[sub]) / static_cast<float>(top);
  }
  const float d = store_half(out, largest_magnitude(step, 8) / 63);
  const float m = store_half(out + 2, largest_magnitude(below, 8) / 63);
  std::uint8_t* packed = out + 4;
  std::memset(packed, 0, 12);
  for (int sub = 0; sub < 8; ++sub) {
    const int s = round_to(step[sub], d, 0, 63);
    const int b = round_to(below[sub], m, 0, 63);
    if (sub < 4) {
      packed[sub] |= static_cast<std::uint8_t>(s);
      packed[sub + 4] |= static_cast<std::uint8_t>(b);
    } else {
      packed[sub + 4] = static_cast<std::uint8_t>((s & 0x0f) | ((b & 0x0f) << 4));
      packed[sub - 4] |= static_cast<std::uint8_t>((s >> 4) << 6);
      packed[sub] |= static_cast<std::uint8_t>((b >> 4) << 6);
    }
    for (int i = 0; i < 32; ++i)
      codes[sub * 32 + i] = static_cast<std::uint8_t>(
          round_to(x[sub * 32 + i] + m * static_cast<float>(b), d * static_cast<float>(s), 0, top));
  }
}

void store_nibbles(const std::uint8_t (&codes)[256], std::uint8_t* out) {
  for (int pair = 0; pair < 4; ++pair)
    for (int i = 0; i < 32; ++i)
      out[pair * 32 + i] = static_cast<std::uint8_t>((codes[pair * 64 + i] & 0x0f) |
                                                     ((codes[pair * 64 + 32 + i] & 0x0f) << 4));
}

void q4_k(const float* x, std::uint8_t* out) {
  std::uint8_t codes[256];
  k_codes(x, out, 15, codes);
  store_nibbles(codes, out + 16);
}

void q5_k(const float* x, std::uint8_t* out) {
  std::uint8_t codes[256];
  k_codes(x, out, 31, codes);
  for (int i = 0; i < 32; ++i) {
    int high = 0;
    for (int sub = 0; sub < 8; ++sub)
      high |= (codes[sub * 32 + i] >> 4) << sub;
    out[16 + i] = static_cast<std::uint8_t>(high);
  }
  store_nibbles(codes, out + 48);
}

void q6_k(const float* x, std::uint8_t* out) {
  const float d = store_half(out + 208, largest_magnitude(x, 256) / (31 * 127));
  std::memset(out, 0, 192);
  for (int part = 0; part < 16; ++part) { // 16 values, one scale
    const int scale = round_to(largest_magnitude(x + part * 16, 16) / 31, d, 0, 127);
    out[192 + part] = static_cast<std::uint8_t>(scale);
    for (int i = 0; i < 16; ++i) {
      const int at = part * 16 + i;
      const int code = round_to(x[at], d * static_cast<float>(scale), -32, 31) + 32;
      const int half = at / 128;
      const int sub = (at % 128) / 32;
      const int column = at % 32;
      out[half * 64 + (sub % 2) * 32 + column] |=
          static_cast<std::uint8_t>((code & 0x0f) << ((sub / 2) * 4));
      out[128 + half * 32 + column] |= static_cast<std::uint8_t>((code >> 4) << (sub * 2));
    }
  }
}

} // namespace

void quantize_row(tensor_type type, const float* row, std::int64_t columns, std::byte* bytes) {
  const auto size = row_bytes(type, columns); // checks `columns`
  auto* out = reinterpret_cast<std::uint8_t*>(bytes);
  const auto blocks = [&](auto convert) {
    const int values = block_values(type);
    for (std::int64_t at = 0; at < columns; at += values, out += block_bytes(type))
      convert(row + at, out);
  };
  using in = const float*;
  using to = std::uint8_t*;
  switch (type) {
  case tensor_type::f32:
    std::memcpy(bytes, row, size);
    return;
  case tensor_type::f16:
    return blocks([](in x, to b) { store_u16(b, float_to_half(*x)); });
  case tensor_type::bf16:
    return blocks([](in x, to b) { store_u16(b, float_to_bfloat(*x)); });
  case tensor_type::q8_0:
    return blocks(q8_0);
  case tensor_type::q4_0:
    return blocks([](in x, to b) { centred(x, b, b + 2, nullptr, 8); });
  case tensor_type::q4_1:
    return blocks([](in x, to b) { from_minimum(x, b, b + 4, nullptr, 15); });
  case tensor_type::q5_0:
    return blocks([](in x, to b) { centred(x, b, b + 6, b + 2, 16); });
  case tensor_type::q5_1:
    return blocks([](in x, to b) { from_minimum(x, b, b + 8, b + 4, 31); });
  case tensor_type::iq4_nl:
    return blocks(iq4_nl);
  case tensor_type::q4_k:
    return blocks(q4_k);
  case tensor_type::q5_k:
    return blocks(q5_k);
  case tensor_type::q6_k:
    return blocks(q6_k);
  }
}

} // namespace hexgen::compute
