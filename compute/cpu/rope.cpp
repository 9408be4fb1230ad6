#include "compute/cpu/rope.hpp"

#include "compute/cpu/exact_double.hpp"

#include <algorithm>
#include <cmath>

namespace hexgen::compute {

namespace {

constexpr double two_pi = 6.283185307179586476925;

/// Llama 3: long waves are stretched by the factor, short ones kept, those between blended.
double llama3_frequency(double frequency, const model_config& c) {
  const double original = c.rope_original_context;
  const double wave = two_pi / frequency;
  if (wave < original / c.rope_high_frequency_factor)
    return frequency;
  if (wave > original / c.rope_low_frequency_factor)
    return frequency / c.rope_factor;
  const double smooth = (original / wave - c.rope_low_frequency_factor) /
                        (c.rope_high_frequency_factor - c.rope_low_frequency_factor);
  return (1 - smooth) * frequency / c.rope_factor + smooth * frequency;
}

/// YaRN: a ramp over the dimensions from kept (fast) to stretched (slow).
void scale_yarn(std::vector<double>& frequencies, const model_config& c) {
  constexpr double beta_fast = 32;
  constexpr double beta_slow = 1;
  const double dimensions = c.head_dim;
  const auto dimension_of = [&](double rotations) {
    return dimensions * exact_log(c.rope_original_context / (rotations * two_pi)) /
           (2 * exact_log(c.rope_theta));
  };
  const double low = std::max(std::floor(dimension_of(beta_fast)), 0.0);
  const double high = std::min(std::ceil(dimension_of(beta_slow)), dimensions - 1);
  const double width = high > low ? high - low : 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / width, 0.0, 1.0);
    frequencies[i] = frequencies[i] / c.rope_factor * ramp + frequencies[i] * (1 - ramp);
  }
}

} // namespace

rope_table::rope_table(const model_config& config) : frequencies_(config.head_dim / 2) {
  const double log_theta = exact_log(config.rope_theta);
  for (std::size_t i = 0; i < frequencies_.size(); ++i) {
    frequencies_[i] = exact_exp_double(-2.0 * static_cast<double>(i) / config.head_dim * log_theta);
    if (config.scaling == rope_scaling::linear)
      frequencies_[i] /= config.rope_factor;
    if (config.scaling == rope_scaling::llama3)
      frequencies_[i] = llama3_frequency(frequencies_[i], config);
    if (i < config.rope_frequency_factors.size())
      frequencies_[i] /= static_cast<double>(config.rope_frequency_factors[i]);
  }
  if (config.scaling == rope_scaling::yarn) {
    scale_yarn(frequencies_, config);
    if (config.rope_factor > 1)
      magnitude_ = 0.1 * exact_log(config.rope_factor) + 1;
  }
}

void rope_table::fill(std::int32_t position, float* row) const {
  const int n = pairs();
  for (int i = 0; i < n; ++i) {
    const auto angle = exact_sine_cosine(position * frequencies_[static_cast<std::size_t>(i)]);
    row[i] = static_cast<float>(angle.cosine * magnitude_);
    row[n + i] = static_cast<float>(angle.sine * magnitude_);
  }
}

} // namespace hexgen::compute
