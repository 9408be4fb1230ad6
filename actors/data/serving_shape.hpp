// A model's sizes as the planner needs them.
#pragma once

#include "compute/executor.hpp"
#include "scheduler/serving_planner.hpp"

#include <string>

namespace hexgen::actors {

/// What the CPU executor would hold, taken from its own accounting.
[[nodiscard]] scheduler::serving_model serving_shape(const compute::model_file& model,
                                                     const compute::executor_options& options);

} // namespace hexgen::actors
