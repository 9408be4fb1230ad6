// The calibrated mode's simulator: the engine's own batching policy against the calibrated times.
#pragma once

#include "scheduler/calibrated_cost.hpp"
#include "scheduler/simulator.hpp"

#include <vector>

namespace hexgen::scheduler {

struct batch_result {
  std::vector<float> ratios; // latency over base, in order of arrival; refused ones infinite
  double tokens_per_s = 0;   // generated, until the last one
  double mean_batch = 0;     // sequences in a step that decodes
  double mean_ttft_s = 0;    // first token
  double mean_tpot_s = 0;    // each further one
  std::uint64_t preemptions = 0;
  std::size_t refused = 0;
};

struct batch_setting {
  double rate = 1;
  dispatch policy = dispatch::earliest_finish; // by outstanding tokens over the line's speed
  std::vector<float> base;
  int max_step_tokens = 512;
  int max_running = 256;
};

/// Steps are formed by step_batcher, travel the stages in order (each serves one step at a time,
/// as many steps are in flight as there are stages), and return with a token for every sequence
/// that wanted one. Deterministic.
[[nodiscard]] batch_result simulate_batches(const calibrated_cost& costs,
                                            const std::vector<pipeline>& lines,
                                            const std::vector<config::request_kind>& kinds,
                                            const request_stream& stream,
                                            const batch_setting& setting);

} // namespace hexgen::scheduler
