#include "tools/bench_serve/bench_workload.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace hexgen::tools {

namespace {

int draw_length(std::mt19937_64& random, int length, double ratio) {
  const int lowest = std::max(1, static_cast<int>(std::floor(length * (1 - ratio))));
  const int highest = static_cast<int>(std::ceil(length * (1 + ratio)));
  return std::uniform_int_distribution<int>(lowest, std::max(lowest, highest))(random);
}

} // namespace

std::vector<bench_request> make_workload(const bench_options& options, int count, int stream) {
  std::seed_seq seed{static_cast<std::uint32_t>(options.seed),
                     static_cast<std::uint32_t>(options.seed >> 32),
                     static_cast<std::uint32_t>(stream)};
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int> id(options.lowest_id, options.highest_id);
  std::vector<int> prefix(static_cast<std::size_t>(options.prefix_len));
  for (auto& one : prefix)
    one = id(random);
  std::vector<bench_request> all(static_cast<std::size_t>(count));
  for (auto& request : all) {
    const int length = draw_length(random, options.input_len, options.range_ratio);
    request.output_len = draw_length(random, options.output_len, options.range_ratio);
    request.prompt = prefix;
    for (int i = 0; i < length; ++i)
      request.prompt.push_back(id(random));
  }
  if (std::isinf(options.request_rate))
    return all;
  std::gamma_distribution<double> gap(options.burstiness,
                                      1 / (options.request_rate * options.burstiness));
  double at = 0;
  for (auto& request : all)
    request.at_s = at += gap(random);
  const double scale = at > 0 ? count / options.request_rate / at : 0;
  for (auto& request : all)
    request.at_s *= scale;
  return all;
}

} // namespace hexgen::tools
