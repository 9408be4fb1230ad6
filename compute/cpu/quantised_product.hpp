// Products with quantised weights: per block of 32 columns one exact integer dot, converted once,
// one fused multiply-add per term (scale; minimum), blocks in sequence.
#pragma once

#include "compute/cpu/product_kernels.hpp"

namespace hexgen::compute {
namespace {

/// IQ4_NL's values, moved up by 128 so that they are unsigned.
alignas(16) constexpr std::uint8_t nibble_values[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                        129, 141, 153, 166, 181, 197, 217, 241};

/// How far ahead of the dots weights are fetched, block for block through groups and matrices (they
/// follow one another in memory). With one token memory sets the pace: 8 KiB ahead a product reads
/// as fast as a plain loop (26 GB/s), without it at half of that; with many tokens it costs
/// nothing.
constexpr std::size_t read_ahead_bytes = 8192;

/// The scales of one block, per lane. Two scales when its halves differ (Q6_K).
template <class L, scale_kind Kind>
struct block_scales {
  static constexpr bool has_minimum = Kind == scale_kind::half_min || Kind == scale_kind::super_min;
  static constexpr bool two_halves = Kind == scale_kind::super_pair;
  typename L::f scale;
  typename L::f second; // minimum, or the scale of columns 16-31

  explicit block_scales(const std::byte* p) {
    constexpr std::size_t halves = lane_rows * 2;
    scale = L::load_half(p);
    if constexpr (Kind == scale_kind::half_min) {
      second = L::load_half(p + halves);
    } else if constexpr (Kind == scale_kind::super_min) {
      scale = L::mul(scale, L::load_int8(p + 2 * halves));
      second = L::mul(L::load_half(p + halves), L::load_int8(p + 2 * halves + lane_rows));
    } else if constexpr (Kind == scale_kind::super_pair) {
      second = L::mul(scale, L::load_int8(p + halves + lane_rows));
      scale = L::mul(scale, L::load_int8(p + halves));
    }
  }
};

template <class L, code_kind Codes, scale_kind Scales>
struct quantised_product {
  using scales = block_scales<L, Scales>;

  template <int Tokens>
  static void leaf(const product& p, const std::byte* group, int token, leaf_columns columns,
                   typename L::f (&sums)[Tokens]) {
    constexpr std::size_t code_step =
        lane_rows * block_columns / (Codes == code_kind::byte ? 1 : 2);
    const std::size_t scale_step = scale_bytes_of();
    const auto first = static_cast<std::size_t>(columns.begin / block_columns);
    const auto last = static_cast<std::size_t>(columns.end / block_columns);
    const std::size_t row = block_index(token, 0, p.inputs.blocks);
    const std::byte* codes = p.inputs.codes + row * block_code_bytes;
    const block_meta* meta = p.inputs.meta + row;
    const std::byte* group_scales = group + p.weights.scales_offset;
    const int zero = p.weights.zero;
    for (int t = 0; t < Tokens; ++t)
      sums[t] = L::set(0);
    for (std::size_t b = first; b < last; ++b) {
      const scales s(group_scales + scale_step * b);
      const std::byte* ahead = group + read_ahead_bytes + (code_step + scale_step) * b;
      for (std::size_t line = 0; line < code_step + scale_step; line += 64)
        __builtin_prefetch(ahead + line);
      const std::byte* x = codes + b * tile_tokens * block_code_bytes;
      const block_meta* m = meta + b * tile_tokens;
      if constexpr (Tokens == tile_tokens && has_tiles) {
        const typename L::template tile_codes<Codes> weights(group + code_step * b);
        typename L::ints head[Tokens], tail[Tokens];
        if constexpr (scales::two_halves) {
          weights.template dots<0, 4>(x, head);
          weights.template dots<4, 8>(x, tail);
        } else {
          weights.template dots<0, 8>(x, head);
        }
#pragma GCC unroll 16
        for (int t = 0; t < Tokens; ++t)
          add_block(s, m[t], zero, head[t], tail[t], sums[t]);
      } else {
        const typename L::template codes<Codes> weights(group + code_step * b);
#pragma GCC unroll 16
        for (int t = 0; t < Tokens; ++t) {
          const std::byte* at = x + static_cast<std::size_t>(t) * block_code_bytes;
          if constexpr (scales::two_halves)
            add_block(s, m[t], zero, weights.template dot<0, 4>(at), weights.template dot<4, 8>(at),
                      sums[t]);
          else
            add_block(s, m[t], zero, weights.template dot<0, 8>(at), typename L::ints(), sums[t]);
        }
      }
    }
  }

private:
  static constexpr bool has_tiles = requires {
    typename L::template tile_codes<Codes>;
  };

  /// One block's terms of one token; `tail` only where the halves differ.
  static void add_block(const scales& s, const block_meta& m, int zero, typename L::ints head,
                        [[maybe_unused]] typename L::ints tail, typename L::f& sum) {
    const auto scale = L::set(m.scale);
    if constexpr (scales::two_halves) {
      head = L::subtract(head, zero * m.head);
      tail = L::subtract(tail, zero * m.tail);
      sum = L::fma(L::to_floats(head), L::mul(s.scale, scale), sum);
      sum = L::fma(L::to_floats(tail), L::mul(s.second, scale), sum);
    } else {
      if constexpr (!scales::has_minimum)
        head = L::subtract(head, zero * (m.head + m.tail));
      sum = L::fma(L::to_floats(head), L::mul(s.scale, scale), sum);
      if constexpr (scales::has_minimum)
        sum = L::fma(s.second, L::set(m.sum), sum);
    }
  }

  static constexpr std::size_t scale_bytes_of() {
    return lane_rows * (Scales == scale_kind::half ? 2 : Scales == scale_kind::super_min ? 6 : 4);
  }
};

template <class L, int Tokens, code_kind Codes>
void multiply_codes(const product& p, int group_begin, int group_end, int tokens) {
  switch (p.weights.scales) {
  case scale_kind::half:
    return tiles<L, quantised_product<L, Codes, scale_kind::half>, Tokens>(p, group_begin,
                                                                           group_end, 0, tokens);
  case scale_kind::half_min:
    return tiles<L, quantised_product<L, Codes, scale_kind::half_min>, Tokens>(
        p, group_begin, group_end, 0, tokens);
  case scale_kind::super_min:
    return tiles<L, quantised_product<L, Codes, scale_kind::super_min>, Tokens>(
        p, group_begin, group_end, 0, tokens);
  case scale_kind::super_pair:
    return tiles<L, quantised_product<L, Codes, scale_kind::super_pair>, Tokens>(
        p, group_begin, group_end, 0, tokens);
  case scale_kind::none:
    return;
  }
}

/// `Tokens`: the widest tile that the level's registers hold.
template <class L, int Tokens>
void multiply(const product& p, int group_begin, int group_end, int tokens) {
  switch (p.weights.codes) {
  case code_kind::nibble:
    return multiply_codes<L, Tokens, code_kind::nibble>(p, group_begin, group_end, tokens);
  case code_kind::nibble_table:
    return tiles<L, quantised_product<L, code_kind::nibble_table, scale_kind::half>, Tokens>(
        p, group_begin, group_end, 0, tokens);
  case code_kind::byte:
    return multiply_codes<L, Tokens, code_kind::byte>(p, group_begin, group_end, tokens);
  default:
    return multiply_floats<L, Tokens>(p, group_begin, group_end, tokens);
  }
}

/// 32 columns at a time to 16-bit codes |q| <= 32639 = 127 * 256 + 127, so that a code splits into
/// two signed bytes.
template <class L>
void quantise(const float* x, int columns, std::byte* codes, block_meta* meta) {
  constexpr float most = 32639.0F;
  constexpr float least = 1e-30F; // below it the inverse would overflow: such a block is zero
  for (int k = 0; k < columns; k += block_columns) {
    const auto a = L::load(x + k);
    const auto b = L::load(x + k + 16);
    const float largest = L::largest(L::max(L::abs(a), L::abs(b)));
    const float inverse = largest > least ? most / largest : 0.0F;
    const auto head = L::to_ints(L::mul(a, L::set(inverse)));
    const auto tail = L::to_ints(L::mul(b, L::set(inverse)));
    L::store_codes(codes, head, tail);
    meta->scale = largest > least ? largest / most : 0.0F;
    meta->head = L::sum_ints(head);
    meta->tail = L::sum_ints(tail);
    meta->sum = meta->scale * static_cast<float>(meta->head + meta->tail);
    codes += block_code_bytes * tile_tokens;
    meta += tile_tokens;
  }
}

} // namespace
} // namespace hexgen::compute
