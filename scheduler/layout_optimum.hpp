// The one pipeline of least request latency.
#pragma once

#include "scheduler/cost_model.hpp"

#include <optional>

namespace hexgen::scheduler {

/// Over all ordered lists of same-machine stages of legal degree and all layer splits, devices may
/// stay idle. Exact while the pool is small (a few machines), else over all sets of three machines
/// at most that are close to one another. Lengths are means: costs are linear in them.
/// Empty when nothing fits.
[[nodiscard]] std::optional<pipeline> least_latency_pipeline(const cost_model& costs, double prompt,
                                                             double output);

} // namespace hexgen::scheduler
