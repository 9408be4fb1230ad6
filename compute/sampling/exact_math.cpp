#include "compute/sampling/exact_math.hpp"

#include "compute/sampler.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace hexgen::compute {

namespace {

constexpr std::size_t lanes = 64;

// exp(x) = 2^n exp(r), |r| <= ln(2)/2, the polynomial of Cephes' expf (S. Moshier): error below
// 2 units in the last place. NaN gives NaN; past the range of float it is 0 or infinity.
inline float exp_core(float x) {
  constexpr float high = 89.0F;  // exp is infinite from 88.73 on
  constexpr float low = -104.0F; // exp is 0 from -103.98 on
  x = x > high ? high : x;
  x = x < low ? low : x;
  // Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits of the float.
  constexpr float rounder = 12582912.0F;
  const float shifted = x * 1.44269504088896341F + rounder;
  const auto n = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(rounder);
  const float nf = shifted - rounder;
  const float r = (x - nf * 0.693359375F) - nf * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  // 2^n in two factors, for n from -150 to 129 is outside the range of one.
  const auto half = n >> 1;
  const auto power = [](std::int32_t e) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(e + 127) << 23U);
  };
  return p * power(half) * power(n - half);
}

inline void exp_lanes(const float* x, float shift, float* out) {
  for (std::size_t i = 0; i < lanes; ++i)
    out[i] = exp_core(x[i] - shift);
}

inline void add_lanes(const float* x, double* sums) {
  for (std::size_t i = 0; i < lanes; ++i)
    sums[i] += static_cast<double>(x[i]);
}

// The same source once more for wider registers: no operation changes, so no bit does.
#if defined(__x86_64__)
#define HEXGEN_WIDE __attribute__((target("avx2")))
HEXGEN_WIDE void exp_wide(const float* x, float shift, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; i += lanes)
    exp_lanes(x + i, shift, out + i);
}
HEXGEN_WIDE void add_wide(const float* x, double* sums, std::size_t n) {
  for (std::size_t i = 0; i < n; i += lanes)
    add_lanes(x + i, sums);
}
#undef HEXGEN_WIDE
bool has_wide() {
  static const bool wide = __builtin_cpu_supports("avx2") != 0;
  return wide;
}
#else
void exp_wide(const float*, float, float*, std::size_t) {}
void add_wide(const float*, double*, std::size_t) {}
bool has_wide() {
  return false;
}
#endif

} // namespace

float exact_exp(float x) {
  return exp_core(x);
}

void exact_exp_shifted(std::span<const float> x, float shift, std::span<float> out) {
  const auto whole = x.size() / lanes * lanes;
  if (has_wide())
    exp_wide(x.data(), shift, out.data(), whole);
  else
    for (std::size_t i = 0; i < whole; i += lanes)
      exp_lanes(x.data() + i, shift, out.data() + i);
  for (std::size_t i = whole; i < x.size(); ++i)
    out[i] = exp_core(x[i] - shift);
}

double exact_sum(std::span<const float> x) {
  std::array<double, lanes> sums{};
  const auto whole = x.size() / lanes * lanes;
  if (has_wide())
    add_wide(x.data(), sums.data(), whole);
  else
    for (std::size_t i = 0; i < whole; i += lanes)
      add_lanes(x.data() + i, sums.data());
  for (std::size_t i = whole; i < x.size(); ++i)
    sums[i - whole] += static_cast<double>(x[i]);
  for (std::size_t width = lanes / 2; width > 0; width /= 2)
    for (std::size_t i = 0; i < width; ++i)
      sums[i] += sums[i + width];
  return sums[0];
}

} // namespace hexgen::compute
