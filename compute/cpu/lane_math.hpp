// What the kernels of every level share: the exponential, tails of vectors, loading KV elements.
// Included by kernels_*.cpp only, each compiled for its level; hence the unnamed namespaces.
#pragma once

#include "compute/executor.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace hexgen::compute {
namespace {

template <class L>
typename L::f load_first(const float* p, int n) {
  if (n >= 16)
    return L::load(p);
  float padded[16] = {};
  std::memcpy(padded, p, static_cast<std::size_t>(n) * sizeof(float));
  return L::load(padded);
}

template <class L>
void store_first(float* p, int n, typename L::f x) {
  if (n >= 16) {
    L::store(p, x);
    return;
  }
  float padded[16];
  L::store(padded, x);
  std::memcpy(p, padded, static_cast<std::size_t>(n) * sizeof(float));
}

/// exp(x): 2^k times a Taylor polynomial of the rest; 0 below -87, held at exp(88) above.
template <class L>
typename L::f exponential(typename L::f x) {
  constexpr float lowest = -87.0F;
  const auto bounded = L::min(L::max(x, L::set(lowest)), L::set(88.0F));
  const auto k = L::round(L::mul(bounded, L::set(1.44269504F)));
  auto r = L::fma(k, L::set(-0.693359375F), bounded); // ln 2 in two pieces
  r = L::fma(k, L::set(2.12194440e-4F), r);
  auto p = L::set(1.0F / 5040);
  p = L::fma(p, r, L::set(1.0F / 720));
  p = L::fma(p, r, L::set(1.0F / 120));
  p = L::fma(p, r, L::set(1.0F / 24));
  p = L::fma(p, r, L::set(1.0F / 6));
  p = L::fma(p, r, L::set(0.5F));
  p = L::fma(p, r, L::set(1.0F));
  p = L::fma(p, r, L::set(1.0F));
  return L::where_at_least(x, lowest, L::scale_by_power(p, k));
}

template <class L, kv_type Type>
typename L::f load_kv(const std::byte* p) {
  if constexpr (Type == kv_type::f32)
    return L::load(reinterpret_cast<const float*>(p));
  else if constexpr (Type == kv_type::f16)
    return L::load_half(p);
  else if constexpr (Type == kv_type::bf16)
    return L::load_brain(p);
  else
    return L::load_int8(p);
}

} // namespace
} // namespace hexgen::compute
