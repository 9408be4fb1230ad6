#include "tools/planning/inputs.hpp"

#include "config/catalogue.hpp"
#include "scheduler/calibrated_cost.hpp"
#include "scheduler/paper_cost.hpp"
#include "scheduler/plan_service.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

namespace hexgen::tools {

namespace {

constexpr int usual_concurrency = 16;

/// `concurrency` zero: a request alone.
std::unique_ptr<scheduler::cost_model> make_costs(const input_flags& flags,
                                                  const planning_inputs& inputs,
                                                  const scheduler::pool& pool, int concurrency,
                                                  int sequences) {
  if (flags.mode == "paper")
    return std::make_unique<scheduler::paper_cost>(pool, inputs.model, inputs.longest_prompt,
                                                   inputs.longest_output, flags.kv_sharded);
  scheduler::calibration setting;
  setting.concurrency = std::max(1, concurrency);
  setting.sequences = std::max(1, sequences > 0 ? sequences : 2 * concurrency);
  setting.max_running = flags.max_num_seqs;
  setting.context =
      static_cast<int>(inputs.workload.mean_prompt() + inputs.workload.mean_output()) + 1;
  return std::make_unique<scheduler::calibrated_cost>(pool, inputs.model, setting);
}

/// The reference's first machine at degree 8, or the largest that the model allows.
std::vector<float> reference_base(const input_flags& flags, const planning_inputs& inputs) {
  const auto source =
      config::read_cluster(config::find_config(flags.slo_reference, "clusters"), load_catalogue());
  const scheduler::pool pool(source);
  const auto costs = make_costs(flags, inputs, pool, 0, 0);
  if (pool.machines().empty())
    throw std::invalid_argument("--slo-reference: the cluster has no devices");
  const auto& machine = pool.machines().front();
  int degree = 1;
  for (const int allowed : costs->degrees())
    if (allowed <= static_cast<int>(machine.devices.size()))
      degree = allowed;
  const scheduler::pipeline line{
      {std::vector<int>(machine.devices.begin(), machine.devices.begin() + degree), 0,
       inputs.model.layers}};
  return scheduler::base_latencies(*costs, line, inputs.workload.kinds);
}

} // namespace

config::device_catalogue load_catalogue() {
  const auto path = config::find_config("devices", ".");
  return config::read_device_catalogue(path);
}

void add_input_flags(CLI::App& app, input_flags& flags, bool cluster_needed) {
  auto* cluster = app.add_option("--cluster", flags.cluster,
                                 "cluster file, or a shipped name such as paper-full-price");
  if (cluster_needed)
    cluster->required();
  app.add_option("--model", flags.model, "model shape file, or a shipped name such as llama-2-70b");
  app.add_option("--workload", flags.workload,
                 "workload file or name; without it one kind of request:");
  app.add_option("--prompt-tokens", flags.prompt_tokens, "tokens of its prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--output-tokens", flags.output_tokens, "tokens of its answer")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--mode", flags.mode, "cost model: calibrated or paper")
      ->check(CLI::IsMember({"calibrated", "paper"}))
      ->capture_default_str();
  app.add_option("--kv-sharded", flags.kv_sharded, "paper mode: KV divided by the degree")
      ->capture_default_str();
  app.add_option("--slo-reference", flags.slo_reference,
                 "cluster whose first machine sets the deadlines' base")
      ->capture_default_str();
  app.add_option("--occupancy", flags.occupancy,
                 "what a request keeps: max-stage, whole-request, "
                 "token-by-token")
      ->check(CLI::IsMember({"max-stage", "whole-request", "token-by-token"}))
      ->capture_default_str();
  app.add_option("--dispatch", flags.dispatch, "earliest-finish, shortest-queue or round-robin")
      ->check(CLI::IsMember({"earliest-finish", "shortest-queue", "round-robin"}))
      ->capture_default_str();
  app.add_option("--rate", flags.rate, "requests per second")
      ->check(CLI::Range(1e-6, 1e9))
      ->capture_default_str();
  app.add_option("--slo-scale", flags.slo_scale,
                 "deadline as a multiple of the request alone on the reference")
      ->check(CLI::Range(1e-3, 1e6))
      ->capture_default_str();
  app.add_option("--target", flags.target, "share of requests that should keep it")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  app.add_option("--concurrency", flags.concurrency,
                 "calibrated mode: sequences that share a decode step; 0: what serves best")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--max-num-seqs", flags.max_num_seqs,
                 "calibrated mode: sequences that a pipeline runs at once, as serve is given it")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "of arrivals and search")->capture_default_str();
  app.add_flag("--json", flags.json, "print JSON");
}

void add_environment_twins(CLI::App& app) {
  for (auto* option : app.get_options()) {
    auto name = option->get_single_name();
    if (name.empty() || name == "help")
      continue;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
      return c == '-' ? '_' : static_cast<char>(std::toupper(c));
    });
    option->envname("HEXGEN_" + name);
  }
}

int parse_arguments(CLI::App& app, int argc, char** argv) {
  add_environment_twins(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 1 : 3;
  }
  return 0;
}

std::unique_ptr<scheduler::cost_model>
costs_for(const input_flags& flags, const planning_inputs& inputs, int concurrency, int sequences) {
  return make_costs(flags, inputs, *inputs.pool, concurrency, sequences);
}

std::unique_ptr<planning_inputs> load_inputs(const input_flags& flags) {
  return load_inputs(flags, config::read_cluster(config::find_config(flags.cluster, "clusters"),
                                                 load_catalogue()));
}

std::unique_ptr<planning_inputs> load_inputs(const input_flags& flags, config::cluster cluster) {
  auto inputs = std::make_unique<planning_inputs>();
  inputs->cluster = std::move(cluster);
  if (flags.model.empty())
    throw std::invalid_argument("--model is required");
  inputs->model = config::read_model_shape(config::find_config(flags.model, "models"));
  inputs->workload = flags.workload.empty()
                         ? config::fixed_workload(flags.prompt_tokens, flags.output_tokens)
                         : config::read_workload(config::find_config(flags.workload, "workloads"));
  for (const auto& kind : inputs->workload.kinds) {
    inputs->longest_prompt = std::max(inputs->longest_prompt, kind.prompt_tokens);
    inputs->longest_output = std::max(inputs->longest_output, kind.output_tokens);
  }
  inputs->occupancy = flags.occupancy == "whole-request"    ? scheduler::occupancy::whole_request
                      : flags.occupancy == "token-by-token" ? scheduler::occupancy::token_by_token
                                                            : scheduler::occupancy::max_stage;
  inputs->dispatch = flags.dispatch == "round-robin"      ? scheduler::dispatch::round_robin
                     : flags.dispatch == "shortest-queue" ? scheduler::dispatch::shortest_queue
                                                          : scheduler::dispatch::earliest_finish;
  inputs->pool = std::make_unique<scheduler::pool>(inputs->cluster);
  inputs->concurrency = flags.concurrency > 0 ? flags.concurrency : usual_concurrency;
  inputs->costs = costs_for(flags, *inputs, inputs->concurrency);
  inputs->base = reference_base(flags, *inputs);
  return inputs;
}

} // namespace hexgen::tools
