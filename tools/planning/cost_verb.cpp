#include "scheduler/batch_simulator.hpp"
#include "tools/planning/plan_file.hpp"
#include "tools/planning/solve.hpp"
#include "tools/planning/svg.hpp"
#include "tools/planning/verbs.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>

namespace hexgen::tools {

namespace {

/// The plan's own model and mode hold unless a flag says otherwise.
void take_from_plan(const CLI::App& app, const std::string& path, input_flags& flags) {
  const auto header = read_plan_header(path);
  if (app.get_option("--model")->count() == 0 && !header.model.empty())
    flags.model = header.model;
  if (app.get_option("--mode")->count() == 0 && !header.mode.empty()) {
    if (header.mode != "paper" && header.mode != "calibrated")
      throw std::runtime_error(path + ": mode: must be paper or calibrated");
    flags.mode = header.mode;
  }
  if (app.get_option("--concurrency")->count() == 0)
    flags.concurrency = header.concurrency;
}

int run_cost(const CLI::App& app, input_flags& flags, const std::string& path) {
  take_from_plan(app, path, flags);
  const auto inputs = load_inputs(flags);
  const auto file = read_plan_file(path, *inputs->pool);
  const auto broken = scheduler::check_pipelines(*inputs->costs, file.lines, inputs->longest_prompt,
                                                 inputs->longest_output);
  planned plan;
  plan.lines = file.lines;
  if (!broken.empty()) {
    const failed_plan failure{broken, "the plan breaks these limits"};
    if (flags.json)
      std::puts(failure_json(flags, *inputs, failure).c_str());
    else
      for (const auto& one : broken)
        std::fprintf(stderr, "%s: %s: need %.6g, have %.6g\n", one.device.c_str(),
                     one.constraint.c_str(), one.need, one.have);
    return 1;
  }
  measure(flags, *inputs, plan);
  if (flags.json)
    std::puts(plan_json(flags, *inputs, plan).c_str());
  else
    std::fputs(plan_table(flags, *inputs, plan).c_str(), stdout);
  return 0;
}

struct sweep_flags {
  std::string plan, sweep, svg;
  double from = 0, to = 0;
  int points = 25;
  std::size_t requests = 0; // as many as the mode affords
};

struct simulated {
  double attainment = 0, mean_ratio = 0;
  double scale_99 = 0, scale_90 = 0, rate_99 = 0, rate_90 = 0;
};

/// Largest rate by bisection below what the plan serves at most.
double rate_for(const input_flags& flags, const planning_inputs& inputs,
                const std::vector<scheduler::pipeline>& lines, std::size_t requests, double share,
                double most) {
  if (const auto* costs = dynamic_cast<const scheduler::calibrated_cost*>(inputs.costs.get()))
    return scheduler::largest_batch_rate(
        *costs, lines, inputs.workload.kinds,
        scheduler::make_stream(inputs.workload, requests, flags.seed),
        {flags.rate, inputs.dispatch, inputs.base}, flags.slo_scale, share, most);
  double low = 0, high = 1.2 * most;
  for (int i = 0; i < 24 && high - low > 2e-3 * high; ++i) {
    const double middle = (low + high) / 2;
    const auto ratios = run_plan(inputs, lines, middle, requests, flags.seed);
    (scheduler::attainment(ratios, flags.slo_scale) >= share ? low : high) = middle;
  }
  return low;
}

simulated simulate_at(const input_flags& flags, const planning_inputs& inputs,
                      const std::vector<scheduler::pipeline>& lines, std::size_t requests) {
  simulated found;
  auto ratios = run_plan(inputs, lines, flags.rate, requests, flags.seed);
  found.attainment = scheduler::attainment(ratios, flags.slo_scale);
  for (const float ratio : ratios)
    found.mean_ratio += static_cast<double>(ratio) / static_cast<double>(ratios.size());
  found.scale_99 = scheduler::scale_for(ratios, 0.99);
  found.scale_90 = scheduler::scale_for(ratios, 0.90);
  return found;
}

std::vector<std::pair<double, double>> sweep(const input_flags& flags,
                                             const planning_inputs& inputs,
                                             const std::vector<scheduler::pipeline>& lines,
                                             const sweep_flags& how, double capacity) {
  std::vector<std::pair<double, double>> points;
  const bool rates = how.sweep == "rate";
  const double from = how.from > 0 ? how.from : rates ? capacity * 0.05 : 1;
  const double to = how.to > from ? how.to : rates ? capacity * 1.1 : 30;
  std::vector<float> ratios;
  if (!rates)
    ratios = run_plan(inputs, lines, flags.rate, how.requests, flags.seed);
  for (int i = 0; i < how.points; ++i) {
    const double x = from + (to - from) * i / std::max(1, how.points - 1);
    if (rates)
      ratios = run_plan(inputs, lines, x, how.requests, flags.seed);
    points.emplace_back(x, scheduler::attainment(ratios, rates ? flags.slo_scale : x));
  }
  return points;
}

int run_simulate(const CLI::App& app, input_flags& flags, sweep_flags& how) {
  take_from_plan(app, how.plan, flags);
  const auto inputs = load_inputs(flags);
  if (how.requests == 0)
    how.requests = batches(*inputs) ? 3'000 : 20'000;
  const auto file = read_plan_file(how.plan, *inputs->pool);
  const auto broken = scheduler::check_pipelines(*inputs->costs, file.lines, inputs->longest_prompt,
                                                 inputs->longest_output);
  if (!broken.empty())
    throw std::runtime_error(how.plan + ": " + broken.front().device + ": " +
                             broken.front().constraint + " is broken; see hexgen cost");
  planned plan;
  plan.lines = file.lines;
  measure(flags, *inputs, plan);
  auto found = simulate_at(flags, *inputs, plan.lines, how.requests);
  found.rate_99 = rate_for(flags, *inputs, plan.lines, how.requests, 0.99, plan.throughput_rps);
  found.rate_90 = rate_for(flags, *inputs, plan.lines, how.requests, 0.90, plan.throughput_rps);
  std::vector<std::pair<double, double>> points;
  if (!how.sweep.empty())
    points = sweep(flags, *inputs, plan.lines, how, plan.throughput_rps);
  if (!how.svg.empty() && !points.empty())
    write_text(how.svg, curves_svg("SLO attainment",
                                   how.sweep == "rate" ? "requests per second" : "SLO scale",
                                   "attainment", {{inputs->cluster.name, points}}));
  if (flags.json) {
    std::printf("{\"slo_attainment\": %.6f, \"rate\": %.6g, \"slo_scale\": %.6g, "
                "\"mean_over_reference\": %.6g,\n \"scale_99\": %.6g, \"scale_90\": %.6g, "
                "\"rate_99\": %.6g, \"rate_90\": %.6g,\n \"throughput_rps\": %.6g, "
                "\"upper_bound_rps\": %.6g, \"requests\": %zu, \"seed\": %llu",
                found.attainment, flags.rate, flags.slo_scale, found.mean_ratio, found.scale_99,
                found.scale_90, found.rate_99, found.rate_90, plan.throughput_rps, plan.bound_rps,
                how.requests, static_cast<unsigned long long>(flags.seed));
    if (!points.empty()) {
      std::printf(",\n \"sweep\": {\"over\": \"%s\", \"points\": [", how.sweep.c_str());
      for (std::size_t i = 0; i < points.size(); ++i)
        std::printf("%s[%.6g, %.6f]", i == 0 ? "" : ", ", points[i].first, points[i].second);
      std::printf("]}");
    }
    std::puts("}");
    return 0;
  }
  std::printf("SLO attainment %.4f at %g requests/s and scale %g (mean %.3f x the reference)\n",
              found.attainment, flags.rate, flags.slo_scale, found.mean_ratio);
  std::printf("smallest scale at this rate: 99 %% %.3f, 90 %% %.3f\n", found.scale_99,
              found.scale_90);
  std::printf("largest rate at this scale:  99 %% %.3f, 90 %% %.3f requests/s\n", found.rate_99,
              found.rate_90);
  std::printf("throughput %.4g requests/s, no plan exceeds %.4g\n", plan.throughput_rps,
              plan.bound_rps);
  if (const auto* costs = dynamic_cast<const scheduler::calibrated_cost*>(inputs->costs.get());
      costs != nullptr) {
    const scheduler::batch_setting setting{flags.rate, inputs->dispatch, inputs->base};
    const auto stream = scheduler::make_stream(inputs->workload, how.requests, flags.seed);
    const auto batches =
        scheduler::simulate_batches(*costs, plan.lines, inputs->workload.kinds, stream, setting);
    std::printf("engine: %.1f tokens/s, %.1f sequences a step, first token %.3f s, each further "
                "one %.4f s, %llu preemptions\n",
                batches.tokens_per_s, batches.mean_batch, batches.mean_ttft_s, batches.mean_tpot_s,
                static_cast<unsigned long long>(batches.preemptions));
  }
  if (!points.empty()) {
    std::printf("\n%12s  attainment\n", how.sweep.c_str());
    for (const auto& [x, y] : points)
      std::printf("%12.4f  %.4f\n", x, y);
  }
  return 0;
}

} // namespace

int cost_main(int argc, char** argv) {
  CLI::App app{"Price a given placement", "hexgen cost"};
  input_flags flags;
  std::string plan;
  add_input_flags(app, flags, true);
  app.add_option("--plan", plan, "plan file: model, mode and stages are read")->required();
  if (const int code = parse_arguments(app, argc, argv); code != 0)
    return code - 1;
  try {
    return run_cost(app, flags, plan);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hexgen cost: %s\n", error.what());
    return 1;
  }
}

int simulate_main(int argc, char** argv) {
  CLI::App app{"Simulate requests against a placement", "hexgen simulate"};
  input_flags flags;
  sweep_flags how;
  add_input_flags(app, flags, true);
  app.add_option("--plan", how.plan, "plan file")->required();
  app.add_option("--sweep", how.sweep, "print the curve over rate or slo-scale")
      ->check(CLI::IsMember({"rate", "slo-scale"}));
  app.add_option("--from", how.from, "first point")->check(CLI::Range(0.0, 1e9));
  app.add_option("--to", how.to, "last point")->check(CLI::Range(0.0, 1e9));
  app.add_option("--points", how.points, "points of the curve")->check(CLI::Range(2, 1000));
  app.add_option("--requests", how.requests,
                 "simulated requests; without it 20,000, in calibrated mode 3,000")
      ->check(CLI::Range(100, 50'000'000));
  app.add_option("--svg", how.svg, "write the curve to this file");
  if (const int code = parse_arguments(app, argc, argv); code != 0)
    return code - 1;
  try {
    return run_simulate(app, flags, how);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hexgen simulate: %s\n", error.what());
    return 1;
  }
}

} // namespace hexgen::tools
