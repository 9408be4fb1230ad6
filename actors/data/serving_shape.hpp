// A model's sizes as the planner needs them.
#pragma once

#include "compute/executor.hpp"
#include "scheduler/serving_planner.hpp"

#include <functional>

namespace hexgen::actors {

/// What a device holds, by its own accounting `memory` of a shard.
[[nodiscard]] scheduler::serving_sizes
sizes_of(const compute::model_config& config,
         const std::function<compute::executor_memory(const compute::shard&)>& memory);

/// What the CPU executor would hold, taken from its own accounting.
[[nodiscard]] scheduler::serving_model serving_shape(const compute::model_file& model,
                                                     const compute::executor_options& options);

} // namespace hexgen::actors
