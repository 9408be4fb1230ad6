// Helix's clusters: our plan beside one for each kind alone, Helix's and Swarm's ways to place.
#pragma once

#include "scheduler/flow_placement.hpp"
#include "tools/planning/inputs.hpp"

#include <functional>

namespace hexgen::tools {

/// Requests per second that flow through a placement, `place(costs)`; in calibrated mode at the
/// size of batch that serves most, every machine with room for the KV of all sequences under way.
[[nodiscard]] double
best_flow(const input_flags& flags, const planning_inputs& inputs,
          const std::function<scheduler::flow_plan(const scheduler::cost_model&)>& place);

/// Generated tokens per second of a cluster that requests never run out of.
struct offline_figures {
  // Simulated as the engine batches:
  double ours = 0;
  double separate = 0; // pipelines of one type of node each
  // As flows count, without queues:
  double shared_flow = 0;   // Helix-like: any machine hands on to any that continues
  double stages_flow = 0;   // Swarm-like: equal stages
  double separate_flow = 0; // Helix-like inside each type of node, summed
};

/// Takes about three times `seconds_each`. Throws where the inputs do not load.
[[nodiscard]] offline_figures compare_offline(const input_flags& flags, double seconds_each,
                                              bool progress);

} // namespace hexgen::tools
