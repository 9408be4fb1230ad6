// y = W x: tiles of 16 rows by a few tokens, leaf by leaf, leaves added in the fixed tree.
#pragma once

#include "compute/cpu/kernels.hpp"
#include "compute/cpu/lane_math.hpp"

namespace hexgen::compute {
namespace {

constexpr int most_leaf_depth = 9; // sums that wait in the tree of at most 256 leaves

/// Float weights: one fused multiply-add per column, in sequence.
template <class L, code_kind Codes>
struct float_product {
  template <int Tokens>
  static void leaf(const product& p, const std::byte* group, int token, leaf_columns columns,
                   typename L::f (&sums)[Tokens]) {
    constexpr std::size_t step = (Codes == code_kind::f32 ? 4 : 2) * lane_rows;
    const float* x = p.inputs.values + static_cast<std::size_t>(token) * p.inputs.stride;
    for (int t = 0; t < Tokens; ++t)
      sums[t] = L::set(0);
    for (int k = columns.begin; k < columns.end; ++k) {
      const std::byte* at = group + step * static_cast<std::size_t>(k);
      typename L::f w;
      if constexpr (Codes == code_kind::f32)
        w = L::load(reinterpret_cast<const float*>(at));
      else if constexpr (Codes == code_kind::f16)
        w = L::load_half(at);
      else
        w = L::load_brain(at);
#pragma GCC unroll 16
      for (int t = 0; t < Tokens; ++t)
        sums[t] = L::fma(w, L::set(x[static_cast<std::size_t>(t) * p.inputs.stride + k]), sums[t]);
    }
  }
};

/// One tile: rows of `group`, `Tokens` tokens, all sums.
template <class L, class Product, int Tokens>
void tile(const product& p, int group, int token) {
  const std::byte* data = p.weights.data + p.weights.group_bytes * static_cast<std::size_t>(group);
  const int rows = p.weights.rows - group * lane_rows;
  alignas(64) float waiting[most_leaf_depth][Tokens][lane_rows];
  for (int s = 0; s < p.sum_count; ++s) {
    const leaf_sum& sum = p.sums[s];
    int depth = 0;
    const auto merge = [&] {
      --depth;
      for (int t = 0; t < Tokens; ++t) {
        float* left = waiting[depth - 1][t];
        L::store(left, L::add(L::load(left), L::load(waiting[depth][t])));
      }
    };
    for (int i = 0; i < sum.count; ++i) {
      typename L::f sums[Tokens];
      Product::template leaf<Tokens>(p, data, token, sum.leaves[i], sums);
      for (int t = 0; t < Tokens; ++t)
        L::store(waiting[depth][t], sums[t]);
      ++depth;
      for (int done = i + 1; done % 2 == 0; done /= 2)
        merge();
    }
    while (depth > 1)
      merge();
    float* out = sum.out + static_cast<std::size_t>(token) * p.out_stride + group * lane_rows;
    for (int t = 0; t < Tokens; ++t)
      store_first<L>(out + static_cast<std::size_t>(t) * p.out_stride, rows,
                     L::load(waiting[0][t]));
  }
}

template <class L, class Product, int Tokens>
void tiles(const product& p, int group_begin, int group_end, int token, int tokens) {
  for (; tokens - token >= Tokens; token += Tokens)
    for (int g = group_begin; g < group_end; ++g)
      tile<L, Product, Tokens>(p, g, token);
  if constexpr (Tokens > 1)
    tiles<L, Product, Tokens / 2>(p, group_begin, group_end, token, tokens);
}

template <class L, int Tokens>
void multiply_floats(const product& p, int group_begin, int group_end, int tokens) {
  switch (p.weights.codes) {
  case code_kind::f16:
    return tiles<L, float_product<L, code_kind::f16>, Tokens>(p, group_begin, group_end, 0, tokens);
  case code_kind::bf16:
    return tiles<L, float_product<L, code_kind::bf16>, Tokens>(p, group_begin, group_end, 0,
                                                               tokens);
  default:
    return tiles<L, float_product<L, code_kind::f32>, Tokens>(p, group_begin, group_end, 0, tokens);
  }
}

} // namespace
} // namespace hexgen::compute
