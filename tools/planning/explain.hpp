// Sentences about a plan: what bounds a stage, why a device is idle, what is missing.
#pragma once

#include "tools/planning/plan_file.hpp"

namespace hexgen::tools {

/// Fills `idle`, and `why` when asked for.
void explain_plan(const planning_inputs& inputs, bool every_stage, planned& plan);

/// Which constraint fails, by how much, what would help, for a cluster without any feasible plan.
[[nodiscard]] failed_plan explain_failure(const planning_inputs& inputs);

} // namespace hexgen::tools
