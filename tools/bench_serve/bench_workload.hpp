// What is sent and when: a pure function of the options.
#pragma once

#include "tools/bench_serve/bench_options.hpp"

namespace hexgen::tools {

struct bench_request {
  double at_s = 0; // from the run's begin
  std::vector<int> prompt;
  int output_len = 0;
};

/// Arrivals are Poisson (burstiness 1) or gamma, rescaled so that the last one comes at exactly
/// requests / rate, as vLLM does. `count` requests; `stream` tells warm-ups from measured ones.
[[nodiscard]] std::vector<bench_request> make_workload(const bench_options& options, int count,
                                                       int stream);

} // namespace hexgen::tools
