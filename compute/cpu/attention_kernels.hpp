// Attention over paged keys and values: blocks of 16 positions are folded in order by an online
// softmax, so that neither chunking nor the placement of blocks changes a bit.
#pragma once

#include "compute/cpu/kernels.hpp"
#include "compute/cpu/lane_math.hpp"

#include <immintrin.h>

namespace hexgen::compute {
namespace {

constexpr int most_head_dim = 512;
constexpr int queries_at_once = 4; // query heads that share the loads of one KV head

inline std::uint16_t to_brain(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U)
    return static_cast<std::uint16_t>(bits >> 16 | 0x40U); // quiet NaN
  return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

/// Writes one element of a block's keys or values; `inverse` is 1 / scale of q8.
inline void put_element(kv_type type, std::byte* base, std::size_t index, float x, float inverse) {
  if (type == kv_type::f32) {
    std::memcpy(base + index * 4, &x, 4);
  } else if (type == kv_type::q8) {
    base[index] = static_cast<std::byte>(_mm_cvtss_si32(_mm_set_ss(x * inverse)));
  } else {
    const std::uint16_t bits = type == kv_type::f16
                                   ? _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
                                   : to_brain(x);
    std::memcpy(base + index * 2, &bits, 2);
  }
}

/// The scale of a q8 vector: its largest magnitude / 127.
inline float int8_scale(const float* x, int n) {
  float largest = 0;
  for (int i = 0; i < n; ++i) {
    const float magnitude = __builtin_fabsf(x[i]);
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest / 127.0F;
}

template <class L>
void store_kv(const kv_layout& layout, std::byte* block, int slot, const float* key,
              const float* value) {
  const int n = layout.head_dim;
  const int padded = layout.padded();
  std::byte* values = block + layout.values_offset();
  float key_inverse = 0;
  float value_inverse = 0;
  if (layout.type == kv_type::q8) {
    const float scales[2] = {int8_scale(key, n), int8_scale(value, n)};
    key_inverse = scales[0] > 0 ? 1.0F / scales[0] : 0;
    value_inverse = scales[1] > 0 ? 1.0F / scales[1] : 0;
    std::byte* at = block + layout.scales_offset() + static_cast<std::size_t>(slot) * sizeof(float);
    std::memcpy(at, &scales[0], sizeof(float));
    std::memcpy(at + block_tokens * sizeof(float), &scales[1], sizeof(float));
  }
  for (int i = 0; i < padded; ++i) {
    const auto dim = static_cast<std::size_t>(i);
    const auto at = static_cast<std::size_t>(slot);
    put_element(layout.type, block, dim * block_tokens + at, i < n ? key[i] : 0, key_inverse);
    put_element(layout.type, values, at * padded + dim, i < n ? value[i] : 0, value_inverse);
  }
}

/// Scores of 16 positions for Q queries. Lane l of the fixed 16-lane tree sums dimensions l, l+16,
/// ...; here each such lane is a vector over the positions.
template <class L, kv_type Type, int Q>
struct block_scores {
  struct scores {
    typename L::f of[Q];
  };
  const std::byte* keys;
  const std::byte* values; // of the same block: read ahead
  const float (*query)[most_head_dim];
  int padded;
  std::size_t element;

  scores lane(int l) const {
    scores out;
    for (int q = 0; q < Q; ++q)
      out.of[q] = L::set(0);
    for (int d = l; d < padded; d += 16) {
      const std::size_t at = static_cast<std::size_t>(d) * block_tokens * element;
      const auto k = load_kv<L, Type>(keys + at);
      __builtin_prefetch(values + at);
      for (int q = 0; q < Q; ++q)
        out.of[q] = L::fma(L::set(query[q][d]), k, out.of[q]);
    }
    return out;
  }
  template <int Stride>
  scores tree(int l) const {
    if constexpr (Stride == 16) {
      return lane(l);
    } else {
      const auto left = tree<Stride * 2>(l);
      const auto right = tree<Stride * 2>(l + Stride);
      scores out;
      for (int q = 0; q < Q; ++q)
        out.of[q] = L::add(left.of[q], right.of[q]);
      return out;
    }
  }
};

/// Adds the first `counts` values of a block to the sums of Q queries, Lanes times 16 dimensions
/// from `d`; no count is below the first one. The keys of the `next` block are as large and read
/// ahead.
template <class L, kv_type Type, int Q, int Lanes>
[[gnu::always_inline]] inline void
add_values(const std::byte* values, const std::byte* next, int padded, int d,
           const int (&counts)[Q], const float (&weights)[Q][block_tokens],
           const float (&fades)[16], float (&sums)[Q][most_head_dim]) {
  constexpr std::size_t element = kv_layout{Type, 0}.element();
  typename L::f sum[Q][Lanes];
  for (int q = 0; q < Q; ++q)
    for (int l = 0; l < Lanes; ++l)
      sum[q][l] = L::mul(L::load(sums[q] + d + 16 * l), L::set(fades[q]));
  std::size_t at = static_cast<std::size_t>(d) * element;
  const std::size_t step = static_cast<std::size_t>(padded) * element;
  for (int j = 0; j < counts[0]; ++j, at += step) {
    typename L::f v[Lanes];
    for (int l = 0; l < Lanes; ++l) {
      v[l] = load_kv<L, Type>(values + at + 16 * l * element);
      __builtin_prefetch(next + at + 16 * l * element);
    }
    for (int q = 0; q < Q; ++q) {
      const auto w = L::set(weights[q][j]);
      for (int l = 0; l < Lanes; ++l)
        sum[q][l] = L::fma(w, v[l], sum[q][l]);
    }
  }
  for (int q = 1; q < Q; ++q)
    for (int j = counts[0]; j < counts[q]; ++j)
      for (int l = 0; l < Lanes; ++l)
        sum[q][l] = L::fma(L::set(weights[q][j]),
                           load_kv<L, Type>(values + static_cast<std::size_t>(j) * step +
                                            (static_cast<std::size_t>(d) + 16 * l) * element),
                           sum[q][l]);
  for (int q = 0; q < Q; ++q)
    for (int l = 0; l < Lanes; ++l)
      L::store(sums[q] + d + 16 * l, sum[q][l]);
}

/// `Heads` query heads of `Tokens` tokens, whose last positions lie in one block.
template <class L, kv_type Type, int Heads, int Tokens>
void attend_heads(const kv_layout& layout, const attention& a, int first_token, int first_head) {
  constexpr int Q = Heads * Tokens; // query q: head q % Heads of token q / Heads
  constexpr int lanes = Q * L::value_lanes <= 24 ? L::value_lanes : 1; // their sums fit
  const int n = layout.head_dim;
  const int padded = layout.padded();
  const std::size_t element = layout.element();
  alignas(64) float query[Q][most_head_dim];
  alignas(64) float sums[Q][most_head_dim];
  alignas(64) float weights[Q][block_tokens];
  float top[Q];
  float total[Q];
  for (int q = 0; q < Q; ++q) {
    std::memset(query[q], 0, static_cast<std::size_t>(padded) * sizeof(float));
    std::memset(sums[q], 0, static_cast<std::size_t>(padded) * sizeof(float));
    std::memcpy(query[q],
                a.query + static_cast<std::size_t>(first_token + q / Heads) * a.query_stride +
                    static_cast<std::size_t>(first_head + q % Heads) * n,
                static_cast<std::size_t>(n) * sizeof(float));
    top[q] = -__builtin_inff();
    total[q] = 0;
  }

  const int positions = a.positions + first_token; // of the first of these tokens
  for (int begin = 0; begin < positions; begin += block_tokens) {
    int counts[Q];
    for (int q = 0; q < Q; ++q) {
      const int left = positions + q / Heads - begin;
      counts[q] = left < block_tokens ? left : block_tokens;
    }
    const std::byte* block = a.pool + a.blocks[begin / block_tokens] * a.block_stride;
    const std::byte* values = block + layout.values_offset();
    const auto* scales = reinterpret_cast<const float*>(block + layout.scales_offset());
    const std::byte* next = begin + block_tokens < positions
                                ? a.pool + a.blocks[begin / block_tokens + 1] * a.block_stride
                                : block;
    const block_scores<L, Type, Q> keys{block, values, query, padded, element};
    auto scores = keys.template tree<1>(0);
    alignas(64) float fades[16] = {}; // what the blocks before weigh after this block's maximum
    for (int q = 0; q < Q; ++q) {
      auto& s = scores.of[q];
      if constexpr (Type == kv_type::q8)
        s = L::mul(s, L::load(scales));
      s = L::first(s, counts[q], -__builtin_inff());
      const float largest = L::largest(s);
      const float now = largest > top[q] ? largest : top[q];
      fades[q] = top[q] - now;
      top[q] = now;
    }
    L::store(fades, exponential<L>(L::load(fades)));
    for (int q = 0; q < Q; ++q) {
      const auto w = L::first(exponential<L>(L::sub(scores.of[q], L::set(top[q]))), counts[q], 0);
      total[q] = __builtin_fmaf(total[q], fades[q], L::sum(w));
      if constexpr (Type == kv_type::q8)
        L::store(weights[q], L::mul(w, L::first(L::load(scales + block_tokens), counts[q], 0)));
      else
        L::store(weights[q], w);
    }
    int d = 0;
    for (; padded - d >= 16 * lanes; d += 16 * lanes)
      add_values<L, Type, Q, lanes>(values, next, padded, d, counts, weights, fades, sums);
    for (; d < padded; d += 16)
      add_values<L, Type, Q, 1>(values, next, padded, d, counts, weights, fades, sums);
  }
  for (int q = 0; q < Q; ++q)
    for (int d = 0; d < n; d += 16)
      store_first<L>(a.out + static_cast<std::size_t>(first_token + q / Heads) * a.out_stride +
                         static_cast<std::size_t>(first_head + q % Heads) * n + d,
                     n - d, L::div(L::load(sums[q] + d), L::set(total[q])));
}

template <class L, kv_type Type, int Tokens>
void attend_tokens(const kv_layout& layout, const attention& a, int token) {
  int head = 0;
  for (; a.heads - head >= queries_at_once; head += queries_at_once)
    attend_heads<L, Type, queries_at_once, Tokens>(layout, a, token, head);
  switch (a.heads - head) {
  case 3:
    return attend_heads<L, Type, 3, Tokens>(layout, a, token, head);
  case 2:
    return attend_heads<L, Type, 2, Tokens>(layout, a, token, head);
  case 1:
    return attend_heads<L, Type, 1, Tokens>(layout, a, token, head);
  default:
    return;
  }
}

template <class L, kv_type Type>
void attend_typed(const kv_layout& layout, const attention& a) {
  int token = 0;
  if constexpr (L::value_lanes > 1) // registers for two
    for (; token + 2 <= a.tokens && (a.positions + token) % block_tokens != 0; token += 2)
      attend_tokens<L, Type, 2>(layout, a, token);
  for (; token < a.tokens; ++token)
    attend_tokens<L, Type, 1>(layout, a, token);
}

template <class L>
void attend(const kv_layout& layout, const attention& a) {
  switch (layout.type) {
  case kv_type::f32:
    return attend_typed<L, kv_type::f32>(layout, a);
  case kv_type::f16:
    return attend_typed<L, kv_type::f16>(layout, a);
  case kv_type::bf16:
    return attend_typed<L, kv_type::bf16>(layout, a);
  case kv_type::q8:
    return attend_typed<L, kv_type::q8>(layout, a);
  }
}

} // namespace
} // namespace hexgen::compute
