// What every planning verb reads: cluster, model, workload, mode, deadlines.
#pragma once

#include "config/cluster.hpp"
#include "config/model_shape.hpp"
#include "config/workload.hpp"
#include "scheduler/cost_model.hpp"
#include "scheduler/simulator.hpp"

#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
} // namespace CLI

namespace hexgen::tools {

struct input_flags {
  std::string cluster, model, workload;
  int prompt_tokens = 128, output_tokens = 64;
  std::string mode = "calibrated";
  bool kv_sharded = true;
  std::string slo_reference = "a100-reference";
  std::string occupancy = "max-stage";
  std::string dispatch = "earliest-finish";
  double rate = 1, slo_scale = 5, target = 0.99;
  int concurrency = 0; // 0: the planner chooses
  int max_num_seqs = 256;
  std::uint64_t seed = 1;
  bool json = false;
};

/// Adds the flags (each with its environment twin HEXGEN_*). `cluster_needed`: compare has its own.
void add_input_flags(CLI::App& app, input_flags& flags, bool cluster_needed);

/// Every option of the verb gets its environment twin.
void add_environment_twins(CLI::App& app);

/// Parses; prints help or the error. Returns 0 to go on, else the exit code plus one.
[[nodiscard]] int parse_arguments(CLI::App& app, int argc, char** argv);

struct planning_inputs {
  config::cluster cluster;
  config::model_shape model;
  config::workload workload;
  std::unique_ptr<scheduler::pool> pool;
  std::unique_ptr<scheduler::cost_model> costs;
  scheduler::occupancy occupancy = scheduler::occupancy::max_stage;
  scheduler::dispatch dispatch = scheduler::dispatch::earliest_finish;
  std::vector<float> base; // by kind of request: latency alone on the reference
  int longest_prompt = 0, longest_output = 0;
  int concurrency = 0; // calibrated mode: sequences that share a step in `costs`
};

/// The flags' cost model, in calibrated mode for steps that `concurrency` sequences share, with
/// room for the KV of `sequences`; without a number for twice as many as share a step.
[[nodiscard]] std::unique_ptr<scheduler::cost_model> costs_for(const input_flags& flags,
                                                               const planning_inputs& inputs,
                                                               int concurrency, int sequences = 0);

/// Reads all files. Throws config::config_error or std::invalid_argument.
[[nodiscard]] std::unique_ptr<planning_inputs> load_inputs(const input_flags& flags);

/// The same for a cluster made in memory (what-if, budget).
[[nodiscard]] std::unique_ptr<planning_inputs> load_inputs(const input_flags& flags,
                                                           config::cluster cluster);

/// Device kinds that the catalogue knows.
[[nodiscard]] config::device_catalogue load_catalogue();

} // namespace hexgen::tools
