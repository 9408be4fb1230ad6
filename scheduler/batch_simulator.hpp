// The calibrated mode's simulator: the engine's own batching policy against the calibrated times.
#pragma once

#include "scheduler/calibrated_cost.hpp"
#include "scheduler/simulator.hpp"

#include <optional>
#include <vector>

namespace hexgen::scheduler {

struct batch_result {
  std::vector<float> ratios;      // latency over base, in order of arrival; refused ones infinite
  std::vector<double> finished_s; // when each ended, in order of arrival; refused ones infinite
  double tokens_per_s = 0;        // generated, until the last one
  double mean_batch = 0;          // sequences in a step that decodes
  double mean_ttft_s = 0;         // first token
  double mean_tpot_s = 0;         // each further one
  std::uint64_t preemptions = 0;
  std::size_t refused = 0;
};

struct batch_setting {
  double rate = 1;
  dispatch policy = dispatch::earliest_finish; // by outstanding tokens over the line's speed
  std::vector<float> base;
  int max_step_tokens = 512;
};

/// Steps are formed by step_batcher, travel the stages in order (each serves one step at a time,
/// as many steps are in flight as there are stages), and return with a token for every sequence
/// that wanted one. Deterministic.
[[nodiscard]] batch_result simulate_batches(const calibrated_cost& costs,
                                            const std::vector<pipeline>& lines,
                                            const std::vector<config::request_kind>& kinds,
                                            const request_stream& stream,
                                            const batch_setting& setting);

/// The same, or nothing as soon as more than `most_late` requests are known to end beyond `scale`.
[[nodiscard]] std::optional<batch_result>
simulate_batches_within(const calibrated_cost& costs, const std::vector<pipeline>& lines,
                        const std::vector<config::request_kind>& kinds,
                        const request_stream& stream, const batch_setting& setting, double scale,
                        std::size_t most_late);

/// Requests for each line that saturate() needs for a steady middle.
inline constexpr std::size_t saturating_requests = 600;

/// What the lines serve when requests never run out: all of the stream is there at once, and what
/// ends while the middle half of it ends is counted. Longer streams than the lines hold at once
/// tell the steady rate.
struct saturation {
  double requests_per_s = 0;
  double tokens_per_s = 0; // generated
};
[[nodiscard]] saturation saturate(const calibrated_cost& costs, const std::vector<pipeline>& lines,
                                  const std::vector<config::request_kind>& kinds,
                                  const request_stream& stream, batch_setting setting);

/// Largest rate at which `share` of the stream's requests keep `scale`, to 1 % by bisection below
/// `most` (what the lines serve at most: a stream that ends would let a rate pass that no endless
/// one keeps). Where `floor` is not kept, zero.
[[nodiscard]] double largest_batch_rate(const calibrated_cost& costs,
                                        const std::vector<pipeline>& lines,
                                        const std::vector<config::request_kind>& kinds,
                                        const request_stream& stream, batch_setting setting,
                                        double scale, double share, double most, double floor = 0);

} // namespace hexgen::scheduler
