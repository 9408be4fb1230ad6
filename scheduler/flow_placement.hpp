// As Helix places: every machine a contiguous range of layers, any machine may hand on to any that
// continues, and the maximum flow says what the whole serves.
#pragma once

#include "scheduler/cost_model.hpp"

#include <cstdint>
#include <vector>

namespace hexgen::scheduler {

/// A machine's range; it works at the largest degree that its devices allow.
struct layer_range {
  int machine = 0;
  int first_layer = 0;
  int layers = 0;
  double requests_per_s = 0; // that the machine gets through its whole range
};

struct flow_plan {
  std::vector<layer_range> ranges;
  double requests_per_s = 0; // maximum flow of mean requests from the first layer to the last
};

/// Requests per second through ranges that overlap as they may: a machine passes a request on to
/// any linked one that holds the next layer and reaches further (the layers it has already had are
/// skipped there). Exact for the given ranges.
[[nodiscard]] double max_flow(const cost_model& costs, const std::vector<layer_range>& ranges);

/// Local search over the ranges from evenly staggered starts, judged by max_flow. Deterministic.
[[nodiscard]] flow_plan place_by_flow(const cost_model& costs,
                                      const std::vector<config::request_kind>& kinds,
                                      int iterations, std::uint64_t seed);

/// As Swarm: the model in equal stages of what the weakest machine holds, machines dealt out so
/// that the slowest stage is as quick as can be, a stage's machines sharing its requests by speed.
/// Nothing flows when there are fewer machines than stages.
[[nodiscard]] flow_plan place_by_stages(const cost_model& costs,
                                        const std::vector<config::request_kind>& kinds);

} // namespace hexgen::scheduler
