// 64-bit arithmetic on numbers that came out of a file: no wrap-around, ever.
#pragma once

#include <cstdint>
#include <optional>

namespace hexgen::compute {

[[nodiscard]] inline std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum))
    return std::nullopt;
  return sum;
}

[[nodiscard]] inline std::optional<std::uint64_t> checked_multiply(std::uint64_t a,
                                                                   std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product))
    return std::nullopt;
  return product;
}

/// `value` up to the next multiple of `alignment`, a power of two.
[[nodiscard]] inline std::optional<std::uint64_t> checked_align(std::uint64_t value,
                                                                std::uint64_t alignment) {
  const auto padded = checked_add(value, alignment - 1);
  if (!padded)
    return std::nullopt;
  return *padded & ~(alignment - 1);
}

} // namespace hexgen::compute
