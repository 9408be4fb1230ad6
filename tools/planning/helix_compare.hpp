// Helix's clusters: our plan beside one for each kind alone, Helix's and Swarm's ways to place.
#pragma once

#include "tools/planning/inputs.hpp"

#include <string>

namespace hexgen::tools {

/// Generated tokens per second of a cluster that requests never run out of.
struct offline_figures {
  // Simulated as the engine batches:
  double ours = 0;
  double separate = 0; // every type of node by itself
  // As flows count, without queues, at the best size of batch:
  double ours_flow = 0;
  double shared_flow = 0; // Helix-like: any machine hands on to any that continues
  double stages_flow = 0; // Swarm-like: equal stages
};

/// Takes about ten times `seconds_each`. Throws where the inputs do not load.
[[nodiscard]] offline_figures compare_offline(const input_flags& flags, double seconds_each,
                                              bool progress);

} // namespace hexgen::tools
