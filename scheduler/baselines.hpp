// Placements that others would make, for comparison.
#pragma once

#include "scheduler/cost_model.hpp"
#include "scheduler/simulator.hpp"

#include <vector>

namespace hexgen::scheduler {

/// Every machine cut into stages of `degree`, chained inside its region into pipelines of `stages`
/// stages with layers as even as can be; what is left over is idle. Pipelines that break the
/// memory are left out.
[[nodiscard]] std::vector<pipeline> one_shape(const cost_model& costs, int degree, int stages);

/// The shape of one_shape that serves most, by summed rate of the slowest stages.
struct shape {
  int degree = 0, stages = 0;
};
[[nodiscard]] std::vector<shape> possible_shapes(const cost_model& costs);

/// As Petals: every device a stage of its own that holds as many layers as fit, devices joined in
/// order of nearness until a pipeline is complete.
[[nodiscard]] std::vector<pipeline> pipeline_only(const cost_model& costs);

/// What the baselines would make of the pool, legal plans only, each once: one shape everywhere, of
/// all kinds and of each kind alone; one degree and even layers inside every pipeline, over the
/// search's starting points; and Petals'. A placement with shared layers is no plan.
[[nodiscard]] std::vector<std::vector<pipeline>>
baseline_plans(const cost_model& costs, const std::vector<config::request_kind>& kinds,
               occupancy mode);

} // namespace hexgen::scheduler
