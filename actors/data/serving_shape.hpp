// A model's sizes as the planner needs them, and its identity as the agents compare it.
#pragma once

#include "compute/executor.hpp"
#include "scheduler/serving_planner.hpp"

#include <string>

namespace hexgen::actors {

/// What the CPU executor would hold, taken from its own accounting.
[[nodiscard]] scheduler::serving_model serving_shape(const compute::model_file& model,
                                                     const compute::executor_options& options);

/// A hash of the configuration, the tensor table and a sample of every tensor's bytes: equal on two
/// machines that hold the same file. 16 hexadecimal digits. Not a defence against a forger.
[[nodiscard]] std::string model_identity(const compute::model_file& model);

} // namespace hexgen::actors
