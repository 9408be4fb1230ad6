// The middle of a benchmark's repeats.
#pragma once

#include <algorithm>
#include <vector>

namespace hexgen::bench {

/// `values` is not empty; the mean of the two in the middle where their number is even.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

} // namespace hexgen::bench
