#include "compute/cpu/exact_double.hpp"

#include <cmath>
#include <cstdint>

namespace hexgen::compute {

namespace {

// ln 2 and pi/2 in pieces whose leading ones have trailing zeros: k * piece is exact for the k that
// occur, so that the reduced argument keeps its digits (Cody and Waite).
constexpr double ln2_high = 0x1.62e42fee00000p-1;
constexpr double ln2_low = 0x1.a39ef35793c76p-33;
constexpr double half_pi_high = 0x1.921fb54400000p+0;
constexpr double half_pi_middle = 0x1.0b4611a600000p-34;
constexpr double half_pi_low = 0x1.3198a2e037073p-69;

double sine_near_zero(double x) { // |x| <= pi/4, Taylor
  const double z = x * x;
  double sum = 0;
  for (int n = 21; n >= 3; n -= 2)
    sum = (1.0 + sum) * -z / (static_cast<double>(n) * (n - 1));
  return x + x * sum;
}

double cosine_near_zero(double x) {
  const double z = x * x;
  double sum = 0;
  for (int n = 22; n >= 4; n -= 2)
    sum = (1.0 + sum) * -z / (static_cast<double>(n) * (n - 1));
  return 1.0 - 0.5 * z * (1.0 + sum);
}

} // namespace

sine_cosine exact_sine_cosine(double x) {
  constexpr double two_over_pi = 0x1.45f306dc9c883p-1;
  const double k = std::nearbyint(x * two_over_pi);
  const double r = ((x - k * half_pi_high) - k * half_pi_middle) - k * half_pi_low;
  const double s = sine_near_zero(r);
  const double c = cosine_near_zero(r);
  switch (static_cast<std::int64_t>(k) & 3) {
  case 0:
    return {s, c};
  case 1:
    return {c, -s};
  case 2:
    return {-s, -c};
  default:
    return {-c, s};
  }
}

double exact_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent); // [0.5, 1)
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1);
  const double z = s * s;
  double sum = 0;
  for (int n = 25; n >= 3; n -= 2)
    sum = z * (1.0 / n + sum);
  const double log_m = 2 * s + 2 * s * sum;
  return exponent * ln2_high + (exponent * ln2_low + log_m);
}

double exact_exp_double(double x) {
  constexpr double one_over_ln2 = 0x1.71547652b82fep+0;
  const double k = std::nearbyint(x * one_over_ln2);
  const double r = (x - k * ln2_high) - k * ln2_low;
  double sum = 1;
  for (int n = 16; n >= 1; --n)
    sum = 1 + sum * r / n;
  return std::ldexp(sum, static_cast<int>(k));
}

} // namespace hexgen::compute
