// Element-wise kernels and norms, written once over the lanes of a level.
#pragma once

#include "compute/cpu/lane_math.hpp"

namespace hexgen::compute {
namespace {

template <class L>
void normalise(const float* x, const float* weight, float epsilon, int n, float* out) {
  auto squares = L::set(0);
  for (int i = 0; i < n; i += 16) {
    const auto v = load_first<L>(x + i, n - i);
    squares = L::fma(v, v, squares);
  }
  const float mean = L::sum(squares) / static_cast<float>(n);
  const auto scale = L::set(1.0F / __builtin_sqrtf(mean + epsilon));
  for (int i = 0; i < n; i += 16) {
    const auto v = L::mul(load_first<L>(x + i, n - i), scale);
    store_first<L>(out + i, n - i, L::mul(v, load_first<L>(weight + i, n - i)));
  }
}

template <class L>
void gate(float* gate, const float* up, int n) {
  const auto one = L::set(1);
  for (int i = 0; i < n; i += 16) {
    const auto g = load_first<L>(gate + i, n - i);
    const auto e = exponential<L>(L::sub(L::set(0), g));
    const auto silu = L::div(g, L::add(one, e));
    store_first<L>(gate + i, n - i, L::mul(silu, load_first<L>(up + i, n - i)));
  }
}

template <class L>
void add(float* a, const float* b, int n) {
  for (int i = 0; i < n; i += 16)
    store_first<L>(a + i, n - i, L::add(load_first<L>(a + i, n - i), load_first<L>(b + i, n - i)));
}

template <class L>
void rotate(float* head, const float* row, int head_dim, bool interleaved) {
  const int half = head_dim / 2;
  const int step = interleaved ? 2 : 1;
  const int other = interleaved ? 1 : half;
  for (int i = 0; i < half; ++i) {
    const float c = row[i];
    const float s = row[half + i];
    float* p = head + i * step;
    const float a = p[0];
    const float b = p[other];
    p[0] = __builtin_fmaf(a, c, -(b * s));
    p[other] = __builtin_fmaf(a, s, b * c);
  }
}

} // namespace
} // namespace hexgen::compute
