// The discrete-event simulator of the paper's mode: pipelines as servers, requests with deadlines.
#pragma once

#include "scheduler/arrivals.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hexgen::scheduler {

/// Seconds that each kind of request takes in one pipeline.
struct line_service {
  std::vector<float> latency;   // by kind: alone, all stages and hops
  std::vector<float> occupancy; // by kind: how long it keeps the next request from starting
};

enum class dispatch { earliest_finish, shortest_queue, round_robin };

/// How long a request keeps its pipeline: its slowest stage (requests interleave token by token),
/// all of it (one request at a time), or each stage by events, token by token.
enum class occupancy { max_stage, whole_request, token_by_token };

struct simulation {
  dispatch policy = dispatch::earliest_finish;
  double rate = 1;         // requests per second
  std::vector<float> base; // by kind: latency alone on the reference
};

/// Every request's latency over its base, in order of arrival, written to `ratios`. Nothing is
/// dropped. `lines` must not be empty; float is enough for quantiles and twice as quick.
void simulate(const std::vector<const line_service*>& lines, const request_stream& stream,
              const simulation& setting, std::vector<float>& ratios);

/// The same, given up with false as soon as more than `most_late` requests are beyond `scale` times
/// their base: what is worse than a known plan shows it early.
[[nodiscard]] bool simulate_within(const std::vector<const line_service*>& lines,
                                   const request_stream& stream, const simulation& setting,
                                   double scale, std::size_t most_late, std::vector<float>& ratios);

/// Requests that may be beyond the deadline for `share` of `count` to keep it.
[[nodiscard]] std::size_t may_be_late(std::size_t count, double share);

/// Share of requests within `scale` times their base.
[[nodiscard]] double attainment(const std::vector<float>& ratios, double scale);

/// Smallest scale that `share` of the requests keep. Reorders `ratios`.
[[nodiscard]] double scale_for(std::vector<float>& ratios, double share);

/// Largest rate at which `share` of the requests keep `scale`, by bisection between 0 and `most`
/// to a relative 0.2 %.
[[nodiscard]] double largest_rate(const std::vector<const line_service*>& lines,
                                  const request_stream& stream, const simulation& setting,
                                  double scale, double share, double most);

/// Requests per second that the lines serve when none idles: the sum of 1 / mean occupancy.
[[nodiscard]] double capacity(const std::vector<const line_service*>& lines,
                              const std::vector<config::request_kind>& kinds);

} // namespace hexgen::scheduler
