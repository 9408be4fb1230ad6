// A proven limit on the requests per second that any plan can serve.
#pragma once

#include "scheduler/group_layout.hpp"

namespace hexgen::scheduler {

/// Every request of kind k crosses all layers; a device of machine m takes at least c(m, k) device
/// seconds a layer at its best degree, and holds only as many layers as fit. Relaxed: layers and
/// requests are divisible, hops are free, every device may serve every pipeline it can reach.
/// The limit is the dual of that linear programme at prices near its optimum, so it holds whatever
/// the prices; small pools are also bounded over all ways to form groups.
/// Valid for max-stage and whole-request occupancy and any dispatch.
[[nodiscard]] double throughput_bound(const cost_model& costs,
                                      const std::vector<config::request_kind>& kinds);

} // namespace hexgen::scheduler
