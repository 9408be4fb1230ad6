// Runs the search for the verbs: threads, clock and Ctrl-C stay out of the scheduler.
#pragma once

#include "scheduler/batch_simulator.hpp"
#include "scheduler/group_search.hpp"
#include "scheduler/replan.hpp"
#include "tools/planning/inputs.hpp"
#include "tools/planning/plan_file.hpp"

#include <optional>
#include <variant>

namespace hexgen::tools {

struct solve_flags {
  std::string objective = "attainment"; // scale, rate, capacity, replicas, latency
  int replicas = 0;                     // 0: any number
  int iterations = 20'000;
  double seconds = 60; // most for the search
  int islands = 2;     // independent searches, whichever is best wins
  bool across_regions = false;
  bool explain = false;
  bool progress = false; // to stderr
};

/// A plan, or why there is none. In calibrated mode the inputs take the costs at the size of batch
/// that the plan was made for.
[[nodiscard]] std::variant<planned, failed_plan>
solve(const input_flags& flags, const solve_flags& how, planning_inputs& inputs);

/// The next plan after the cluster changed: repaired at once, refined by a search that starts
/// there.
struct next_plan {
  planned repaired, refined;
  std::size_t intact = 0, broken = 0;
  std::vector<scheduler::shard_move> repair_moves,
      refine_moves;          // the latter from the repaired plan
  double repair_seconds = 0; // that finding it took
  double repair_reload_s = 0, refine_reload_s = 0;
  bool refining_pays = false;
};
[[nodiscard]] std::variant<next_plan, failed_plan>
solve_again(const input_flags& flags, const solve_flags& how, planning_inputs& inputs,
            const std::vector<scheduler::running_pipeline>& running, double window_s,
            double load_bytes_per_s);

/// The best grouping under a setting: `islands` searches with seeds of their own.
[[nodiscard]] scheduler::search_result search_islands(const scheduler::cost_model& costs,
                                                      const config::workload& workload,
                                                      const scheduler::search_setting& setting,
                                                      const scheduler::layout_setting& layouts,
                                                      int islands, double seconds, bool progress);

/// Fills attainment, throughput, bound and the scale needed by one long simulation; in calibrated
/// mode as the engine batches.
void measure(const input_flags& flags, const planning_inputs& inputs, planned& plan);

/// Latencies over base of `requests` requests on the plan's lines: in paper mode in the flags'
/// occupancy, in calibrated mode as the engine batches.
[[nodiscard]] std::vector<float> run_plan(const planning_inputs& inputs,
                                          const std::vector<scheduler::pipeline>& lines,
                                          double rate, std::size_t requests, std::uint64_t seed);

/// Calibrated mode: what the lines serve when requests never run out.
[[nodiscard]] scheduler::saturation saturated(const planning_inputs& inputs,
                                              const std::vector<scheduler::pipeline>& lines,
                                              std::uint64_t seed);

/// Calibrated mode: requests share steps.
[[nodiscard]] bool batches(const planning_inputs& inputs);

[[nodiscard]] scheduler::layout_setting layout_setting_for(const planning_inputs& inputs);

/// True once Ctrl-C was pressed since the verb began.
[[nodiscard]] bool interrupted();
void watch_interrupt();

} // namespace hexgen::tools
