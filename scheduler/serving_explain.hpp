// Plain sentences about a serving plan: why each stage got its layers, why a device is idle, what
// is missing when nothing fits.
#pragma once

#include "scheduler/serving_cost.hpp"

#include <string>

namespace hexgen::scheduler {

/// `node/index`.
[[nodiscard]] std::string device_name(const serving_device& device);
/// `1.5 GiB`.
[[nodiscard]] std::string format_bytes(double bytes);

/// Fills `why` and `idle` from the plan's replicas.
void explain(const serving_costs& costs, serving_plan& plan);
/// What is missing, by how much, and what would help; for a cluster where nothing fits.
[[nodiscard]] std::string explain_missing(const serving_costs& costs);
/// Names the first pair of stages without a link.
[[nodiscard]] std::string explain_broken_link(const serving_costs& costs,
                                              const serving_replica& replica);

} // namespace hexgen::scheduler
