// The block formats of ggml, value by value in float32: one rounding per multiply and per add, in
// the order of the PyPI `gguf` package, so the results agree with it in every bit.
#include "compute/files/half.hpp"
#include "compute/model_file.hpp"

#include <cstring>

namespace hexgen::compute {

namespace {

using byte_pointer = const std::uint8_t*;

std::uint16_t load_u16(byte_pointer from) {
  return static_cast<std::uint16_t>(from[0] | (from[1] << 8));
}

std::uint32_t load_u32(byte_pointer from) {
  return load_u16(from) | (static_cast<std::uint32_t>(load_u16(from + 2)) << 16);
}

float load_half(byte_pointer from) {
  return half_to_float(load_u16(from));
}

/// The 32-blocks keep value i in the low and value i + 16 in the high half of byte i.
template <class Value>
void for_nibbles(byte_pointer quants, float* out, Value value) {
  for (int i = 0; i < 16; ++i) {
    out[i] = value(quants[i] & 0x0f, i);
    out[i + 16] = value(quants[i] >> 4, i + 16);
  }
}

void q8_0(byte_pointer block, float* out) {
  const float scale = load_half(block);
  for (int i = 0; i < 32; ++i)
    out[i] = static_cast<float>(static_cast<std::int8_t>(block[2 + i])) * scale;
}

void q4_0(byte_pointer block, float* out) {
  const float scale = load_half(block);
  for_nibbles(block + 2, out, [=](int q, int) { return scale * static_cast<float>(q - 8); });
}

void q4_1(byte_pointer block, float* out) {
  const float scale = load_half(block);
  const float minimum = load_half(block + 2);
  for_nibbles(block + 4, out, [=](int q, int) { return scale * static_cast<float>(q) + minimum; });
}

void q5_0(byte_pointer block, float* out) {
  const float scale = load_half(block);
  const auto high = load_u32(block + 2);
  for_nibbles(block + 6, out, [=](int q, int i) {
    const int fifth = static_cast<int>((high >> i) & 1U) << 4;
    return scale * static_cast<float>((q | fifth) - 16);
  });
}

void q5_1(byte_pointer block, float* out) {
  const float scale = load_half(block);
  const float minimum = load_half(block + 2);
  const auto high = load_u32(block + 4);
  for_nibbles(block + 8, out, [=](int q, int i) {
    const int fifth = static_cast<int>((high >> i) & 1U) << 4;
    return scale * static_cast<float>(q | fifth) + minimum;
  });
}

void iq4_nl(byte_pointer block, float* out) {
  static constexpr std::int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                             1,    13,   25,  38,  53,  69,  89,  113};
  const float scale = load_half(block);
  for_nibbles(block + 2, out, [=](int q, int) { return scale * static_cast<float>(values[q]); });
}

/// The 6-bit scale and minimum of sub-block `i` (0..7) of a Q4_K or Q5_K block.
struct scale_and_minimum {
  scale_and_minimum(byte_pointer packed, int i) {
    if (i < 4) {
      scale = static_cast<float>(packed[i] & 0x3f);
      minimum = static_cast<float>(packed[i + 4] & 0x3f);
    } else {
      const int low = packed[i + 4];
      scale = static_cast<float>((low & 0x0f) | ((packed[i - 4] >> 2) & 0x30));
      minimum = static_cast<float>((low >> 4) | ((packed[i] >> 2) & 0x30));
    }
  }
  float scale;
  float minimum;
};

void q4_k(byte_pointer block, float* out) {
  const float scale = load_half(block);
  const float minimum = load_half(block + 2);
  const byte_pointer quants = block + 16;
  for (int sub = 0; sub < 8; ++sub) {
    const scale_and_minimum part(block + 4, sub);
    const float d = scale * part.scale;
    const float m = minimum * part.minimum;
    const int shift = (sub % 2) * 4;
    for (int i = 0; i < 32; ++i)
      out[sub * 32 + i] = d * static_cast<float>((quants[(sub / 2) * 32 + i] >> shift) & 0x0f) - m;
  }
}

void q5_k(byte_pointer block, float* out) {
  const float scale = load_half(block);
  const float minimum = load_half(block + 2);
  const byte_pointer high = block + 16;
  const byte_pointer quants = block + 48;
  for (int sub = 0; sub < 8; ++sub) {
    const scale_and_minimum part(block + 4, sub);
    const float d = scale * part.scale;
    const float m = minimum * part.minimum;
    const int shift = (sub % 2) * 4;
    for (int i = 0; i < 32; ++i) {
      const int low = (quants[(sub / 2) * 32 + i] >> shift) & 0x0f;
      const int fifth = ((high[i] >> sub) & 1) << 4;
      out[sub * 32 + i] = d * static_cast<float>(low | fifth) - m;
    }
  }
}

void q6_k(byte_pointer block, float* out) {
  const byte_pointer high = block + 128;
  const byte_pointer scales = block + 192;
  const float scale = load_half(block + 208);
  for (int sub = 0; sub < 8; ++sub) { // 32 values: two scales
    const int half = sub / 4;
    const byte_pointer low = block + half * 64 + (sub % 2) * 32;
    const int low_shift = ((sub % 4) / 2) * 4;
    const int high_shift = (sub % 4) * 2;
    for (int i = 0; i < 32; ++i) {
      const auto factor = static_cast<std::int8_t>(scales[sub * 2 + i / 16]);
      const float d = scale * static_cast<float>(factor);
      const int q =
          ((low[i] >> low_shift) & 0x0f) | (((high[half * 32 + i] >> high_shift) & 3) << 4);
      out[sub * 32 + i] = d * static_cast<float>(q - 32);
    }
  }
}

} // namespace

void dequantize_row(tensor_type type, const std::byte* row, std::int64_t columns, float* out) {
  const auto bytes = row_bytes(type, columns); // checks `columns`
  auto from = reinterpret_cast<byte_pointer>(row);
  const auto blocks = [&](auto convert) {
    const int values = block_values(type);
    const int size = block_bytes(type);
    for (std::int64_t at = 0; at < columns; at += values, from += size, out += values)
      convert(from, out);
  };
  switch (type) {
  case tensor_type::f32:
    std::memcpy(out, row, bytes);
    return;
  case tensor_type::f16:
    return blocks([](byte_pointer value, float* to) { *to = load_half(value); });
  case tensor_type::bf16:
    return blocks([](byte_pointer value, float* to) { *to = bfloat_to_float(load_u16(value)); });
  case tensor_type::q8_0:
    return blocks(q8_0);
  case tensor_type::q4_0:
    return blocks(q4_0);
  case tensor_type::q4_1:
    return blocks(q4_1);
  case tensor_type::q5_0:
    return blocks(q5_0);
  case tensor_type::q5_1:
    return blocks(q5_1);
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
