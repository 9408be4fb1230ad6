// Plans as JSON: written by `plan`, read by `cost` and `simulate`.
#pragma once

#include "scheduler/replan.hpp"
#include "tools/planning/inputs.hpp"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::tools {

struct idle_line {
  int device = 0;
  std::string why;
};

struct search_line {
  std::uint64_t seed = 0;
  int generations = 0, evaluations = 0;
  double seconds = 0;
  std::string ended;
};

/// A plan with everything that is printed of it.
struct planned {
  std::vector<scheduler::pipeline> lines;
  std::vector<idle_line> idle;
  std::vector<std::string> why; // --explain: one sentence a stage
  double attainment = 0, throughput_rps = 0, bound_rps = 0;
  double scale_needed = 0; // smallest SLO scale that the target share keeps at the rate
  std::optional<search_line> search;
};

/// A broken plan in numbers, and what would help.
struct failed_plan {
  std::vector<scheduler::violation> violations;
  std::string help;
};

[[nodiscard]] std::string plan_json(const input_flags& flags, const planning_inputs& inputs,
                                    const planned& plan);
[[nodiscard]] std::string failure_json(const input_flags& flags, const planning_inputs& inputs,
                                       const failed_plan& failure);
[[nodiscard]] std::string plan_table(const input_flags& flags, const planning_inputs& inputs,
                                     const planned& plan);

/// Model, mode and stages of a plan file. Throws std::runtime_error naming file and field.
struct plan_file {
  std::string model, mode;
  int concurrency = 0; // 0: not said
  std::vector<scheduler::pipeline> lines;
};
[[nodiscard]] plan_file read_plan_header(const std::string& path);
[[nodiscard]] plan_file read_plan_file(const std::string& path, const scheduler::pool& pool);

/// The same without a cluster to check against: what ran before the cluster changed.
[[nodiscard]] std::vector<scheduler::running_pipeline> read_running_plan(const std::string& path);

/// Prices of a line's stages for the mean request of the workload.
[[nodiscard]] std::vector<scheduler::stage_cost> mean_prices(const planning_inputs& inputs,
                                                             const scheduler::pipeline& line);
[[nodiscard]] double mean_latency(const planning_inputs& inputs, const scheduler::pipeline& line);

} // namespace hexgen::tools
