// Sixteen lanes as a plain array: what the vector levels must equal.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace hexgen::compute {
namespace {

struct lanes_plain {
  struct f {
    float v[16];
  };

  template <class Function>
  static f each(Function&& function) {
    f out;
    for (int i = 0; i < 16; ++i)
      out.v[i] = function(i);
    return out;
  }
  static f set(float x) {
    return each([&](int) { return x; });
  }
  static f load(const float* p) {
    f out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static void store(float* p, const f& a) { std::memcpy(p, a.v, sizeof a.v); }
  static f fma(const f& a, const f& b, const f& c) {
    return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
  }
  static f add(const f& a, const f& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  static f sub(const f& a, const f& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  static f mul(const f& a, const f& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static f div(const f& a, const f& b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
  }
  /// As maxps: the second when either is NaN.
  static f max(const f& a, const f& b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static f min(const f& a, const f& b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static f abs(const f& a) {
    return each([&](int i) { return std::fabs(a.v[i]); });
  }
  static f round(const f& a) {
    return each([&](int i) { return std::nearbyint(a.v[i]); });
  }
  /// a * 2^k for whole k in [-126, 127].
  static f scale_by_power(const f& a, const f& k) {
    return each([&](int i) {
      const auto bits = (static_cast<std::uint32_t>(static_cast<int>(k.v[i]) + 127)) << 23;
      float power;
      std::memcpy(&power, &bits, sizeof power);
      return a.v[i] * power;
    });
  }
  /// a where x >= bound, else 0.
  static f where_at_least(const f& x, float bound, const f& a) {
    return each([&](int i) { return x.v[i] >= bound ? a.v[i] : 0.0F; });
  }
  /// Lanes [0, n) of a, the others `other`.
  static f first(const f& a, int n, float other) {
    return each([&](int i) { return i < n ? a.v[i] : other; });
  }
  /// The fixed tree: lanes i and i+8, then i+4, i+2, i+1.
  static float sum(f a) {
    for (int step = 8; step > 0; step /= 2)
      for (int i = 0; i < step; ++i)
        a.v[i] += a.v[i + step];
    return a.v[0];
  }
  static float largest(f a) {
    for (int step = 8; step > 0; step /= 2)
      for (int i = 0; i < step; ++i)
        a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
    return a.v[0];
  }
  static f load_half(const std::byte* p) {
    return each([&](int i) {
      std::uint16_t bits;
      std::memcpy(&bits, p + 2 * i, sizeof bits);
      return _cvtsh_ss(bits);
    });
  }
  static f load_brain(const std::byte* p) {
    return each([&](int i) {
      std::uint32_t bits = 0;
      std::memcpy(reinterpret_cast<std::byte*>(&bits) + 2, p + 2 * i, 2);
      float x;
      std::memcpy(&x, &bits, sizeof x);
      return x;
    });
  }
  static f load_int8(const std::byte* p) {
    return each([&](int i) { return static_cast<float>(static_cast<std::int8_t>(p[i])); });
  }
};

} // namespace
} // namespace hexgen::compute
