// Which devices form which replica: the best set of disjoint pipelines.
#pragma once

#include "scheduler/serving_cost.hpp"

#include <vector>

namespace hexgen::scheduler {

/// One replica: least request time. Several: the greatest sum of replica_worth, fastest first.
/// Empty when nothing fits. Exact while the count vectors are few, by neighbourhoods beyond.
[[nodiscard]] std::vector<serving_replica> choose_replicas(const serving_costs& costs);

/// What a replica adds to a plan whose fastest possible request takes `best_request_s`.
[[nodiscard]] double replica_worth(const serving_replica& replica, double best_request_s);

} // namespace hexgen::scheduler
