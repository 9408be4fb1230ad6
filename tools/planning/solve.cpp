#include "tools/planning/solve.hpp"

#include "scheduler/batch_simulator.hpp"
#include "scheduler/layout_optimum.hpp"
#include "scheduler/plan_service.hpp"
#include "scheduler/upper_bound.hpp"
#include "tools/planning/batched_search.hpp"
#include "tools/planning/explain.hpp"
#include "tools/planning/in_parallel.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <limits>
#include <mutex>

namespace hexgen::tools {

namespace {

std::atomic<bool> stop_asked{false};

extern "C" void on_interrupt(int) {
  stop_asked = true;
}

using steady = std::chrono::steady_clock;

double since(steady::time_point start) {
  return std::chrono::duration<double>(steady::now() - start).count();
}

scheduler::search_goal goal_of(const std::string& name) {
  if (name == "scale")
    return scheduler::search_goal::scale;
  if (name == "rate")
    return scheduler::search_goal::rate;
  if (name == "capacity")
    return scheduler::search_goal::capacity;
  if (name == "replicas")
    return scheduler::search_goal::replicas;
  return scheduler::search_goal::attainment;
}

constexpr double search_share = 0.9; // of the time limit; what is left is for the ranking
constexpr std::size_t measured_requests = 20'000;
constexpr std::size_t batched_requests = 3'000;

} // namespace

bool batches(const planning_inputs& inputs) {
  return dynamic_cast<const scheduler::calibrated_cost*>(inputs.costs.get()) != nullptr;
}

bool interrupted() {
  return stop_asked;
}

void watch_interrupt() {
  stop_asked = false;
  std::signal(SIGINT, on_interrupt);
}

scheduler::layout_setting layout_setting_for(const planning_inputs& inputs) {
  scheduler::layout_setting setting;
  setting.mode = inputs.occupancy;
  if (inputs.model.layers <= 16 && inputs.pool->devices() <= 16) {
    setting.every_cap = true;
    setting.keep = 24;
  }
  return setting;
}

scheduler::search_result search_islands(const scheduler::cost_model& costs,
                                        const config::workload& workload,
                                        const scheduler::search_setting& setting,
                                        const scheduler::layout_setting& layouts, int islands,
                                        double seconds, bool progress) {
  const auto start = steady::now();
  std::vector<scheduler::search_result> results(static_cast<std::size_t>(islands));
  std::mutex printing;
  double shown = -std::numeric_limits<double>::infinity();
  in_parallel(results.size(), islands, [&](std::size_t island) {
    auto mine = setting;
    mine.seed = setting.seed + 7919 * island;
    mine.stop = [&] { return stop_asked || since(start) > search_share * seconds; };
    mine.stop_ranking = [&] { return stop_asked || since(start) > seconds; };
    if (progress)
      mine.progress = [&](int step, double value) {
        const std::scoped_lock lock(printing);
        if (value > shown) {
          shown = value;
          std::fprintf(stderr, "  %6.2f s  step %d: %.6g\n", since(start), step, value);
        }
      };
    scheduler::layout_book book(costs, workload.kinds, layouts);
    results[island] = scheduler::search_groups(book, workload, mine);
  });
  // All winners are judged on one stream that no search has seen.
  scheduler::layout_book book(costs, workload.kinds, layouts);
  scheduler::group_judge judge(book, workload, setting, setting.final_requests,
                               setting.seed * 2 + 2000);
  auto best = results.front();
  double value = results.size() > 1 ? judge(best.best) : 0;
  for (std::size_t i = 1; i < results.size(); ++i) {
    const double other = judge(results[i].best);
    best.iterations += results[i].iterations;
    best.evaluations += results[i].evaluations;
    if (other > value) {
      value = other;
      best.best = results[i].best;
      best.ranked = results[i].ranked;
      best.value = results[i].value;
    }
  }
  return best;
}

std::vector<float> run_plan(const planning_inputs& inputs,
                            const std::vector<scheduler::pipeline>& lines, double rate,
                            std::size_t requests, std::uint64_t seed) {
  const auto stream = scheduler::make_stream(inputs.workload, requests, seed);
  if (const auto* costs = dynamic_cast<const scheduler::calibrated_cost*>(inputs.costs.get()))
    return scheduler::simulate_batches(*costs, lines, inputs.workload.kinds, stream,
                                       {rate, inputs.dispatch, inputs.base})
        .ratios;
  const auto services =
      scheduler::services_of(*inputs.costs, lines, inputs.workload.kinds, inputs.occupancy);
  const auto pointers = scheduler::pointers_to(services);
  const scheduler::simulation setting{inputs.dispatch, rate, inputs.base};
  std::vector<float> ratios;
  if (inputs.occupancy == scheduler::occupancy::token_by_token) {
    std::vector<scheduler::line_stages> stages;
    for (const auto& line : lines)
      stages.push_back(scheduler::stages_of(*inputs.costs, line, inputs.workload.kinds));
    scheduler::simulate_tokens(pointers, stages, stream, setting, ratios);
  } else {
    scheduler::simulate(pointers, stream, setting, ratios);
  }
  return ratios;
}

namespace {

double throughput(const planning_inputs& inputs, const std::vector<scheduler::pipeline>& lines) {
  double total = 0;
  for (const auto& line : lines) {
    double mean = 0;
    for (const auto& kind : inputs.workload.kinds) {
      const auto time =
          scheduler::time_pipeline(*inputs.costs, line, kind.prompt_tokens, kind.output_tokens);
      mean += kind.share * (inputs.occupancy == scheduler::occupancy::whole_request
                                ? time.latency_s
                                : time.bottleneck_s);
    }
    total += 1 / mean;
  }
  return total;
}

} // namespace

scheduler::saturation saturated(const planning_inputs& inputs,
                                const std::vector<scheduler::pipeline>& lines, std::uint64_t seed) {
  const auto& costs = dynamic_cast<const scheduler::calibrated_cost&>(*inputs.costs);
  // More than all lines hold at once, or it would never be steady.
  const auto stream = scheduler::make_stream(
      inputs.workload, std::max(batched_requests, lines.size() * scheduler::saturating_requests),
      seed);
  return scheduler::saturate(costs, lines, inputs.workload.kinds, stream,
                             {1, inputs.dispatch, inputs.base});
}

void measure(const input_flags& flags, const planning_inputs& inputs, planned& plan) {
  const bool batched = batches(inputs);
  auto ratios = run_plan(inputs, plan.lines, flags.rate,
                         batched ? batched_requests : measured_requests, flags.seed + 77);
  plan.attainment = scheduler::attainment(ratios, flags.slo_scale);
  plan.scale_needed = scheduler::scale_for(ratios, flags.target);
  plan.throughput_rps = batched ? saturated(inputs, plan.lines, flags.seed + 78).requests_per_s
                                : throughput(inputs, plan.lines);
  plan.bound_rps = scheduler::throughput_bound(*inputs.costs, inputs.workload.kinds);
}

namespace {

scheduler::search_setting search_setting_for(const input_flags& flags, const solve_flags& how,
                                             const planning_inputs& inputs) {
  scheduler::search_setting setting;
  setting.goal = goal_of(how.objective);
  setting.rate = flags.rate;
  setting.slo_scale = flags.slo_scale;
  setting.share = flags.target;
  setting.policy = inputs.dispatch;
  setting.seed = flags.seed;
  setting.base = inputs.base;
  setting.iterations = how.iterations;
  setting.epoch = 2000;
  // Long streams: short ones flatter whoever fits them, and a pool of many pipelines costs more.
  setting.requests = inputs.pool->devices() > 256 ? 2000 : 6000;
  setting.stagnation = std::max(setting.stagnation, how.iterations / 2);
  setting.most_replicas = how.replicas;
  setting.across_regions = how.across_regions;
  if (setting.goal == scheduler::search_goal::capacity)
    setting.enough = 0.999 * scheduler::throughput_bound(*inputs.costs, inputs.workload.kinds);
  return setting;
}

/// The best lines that the mode's search finds; calibrated mode's costs move into the inputs.
std::vector<scheduler::pipeline> search_lines(const input_flags& flags, const solve_flags& how,
                                              planning_inputs& inputs,
                                              const scheduler::search_setting& setting,
                                              search_line& told) {
  if (batches(inputs)) {
    auto found = search_batched(flags, how, inputs, setting, layout_setting_for(inputs));
    told.generations = found.told.iterations;
    told.evaluations = found.told.evaluations;
    told.ended = found.told.ended;
    if (!found.lines.empty()) {
      inputs.costs = std::move(found.costs);
      inputs.concurrency = found.concurrency;
    }
    return std::move(found.lines);
  }
  const auto layouts = layout_setting_for(inputs);
  const auto found = search_islands(*inputs.costs, inputs.workload, setting, layouts, how.islands,
                                    how.seconds, how.progress);
  told.generations = found.iterations;
  told.evaluations = found.evaluations;
  told.ended = found.ended;
  scheduler::layout_book book(*inputs.costs, inputs.workload.kinds, layouts);
  auto lines = place_grouping(book, found.best, how.replicas);
  return interrupted()
             ? std::move(lines)
             : or_baseline(book, inputs.workload, setting, inputs.occupancy, std::move(lines));
}

} // namespace

std::variant<planned, failed_plan> solve(const input_flags& flags, const solve_flags& how,
                                         planning_inputs& inputs) {
  const auto start = steady::now();
  planned plan;
  search_line told{flags.seed, 0, 0, 0, "exact"};
  if (how.replicas == 1 || how.objective == "latency") {
    if (auto line = scheduler::least_latency_pipeline(*inputs.costs, inputs.workload.mean_prompt(),
                                                      inputs.workload.mean_output()))
      plan.lines.push_back(std::move(*line));
  }
  if (plan.lines.empty())
    plan.lines = search_lines(flags, how, inputs, search_setting_for(flags, how, inputs), told);
  if (plan.lines.empty())
    return explain_failure(inputs);
  measure(flags, inputs, plan);
  explain_plan(inputs, how.explain, plan);
  told.seconds = since(start);
  plan.search = told;
  return plan;
}

std::variant<next_plan, failed_plan>
solve_again(const input_flags& flags, const solve_flags& how, planning_inputs& inputs,
            const std::vector<scheduler::running_pipeline>& running, double window_s,
            double load_bytes_per_s) {
  next_plan next;
  auto start = steady::now();
  const auto layouts = layout_setting_for(inputs);
  auto setting = search_setting_for(flags, how, inputs);
  const auto kept = scheduler::carry_over(*inputs.costs, running);
  next.intact = kept.intact.size();
  next.broken = kept.broken;
  scheduler::layout_book book(*inputs.costs, inputs.workload.kinds, layouts);
  next.repaired.lines = scheduler::repair(book, inputs.workload, setting, kept.intact);
  next.repair_seconds = since(start);
  if (!next.repaired.lines.empty()) {
    measure(flags, inputs, next.repaired);
    explain_plan(inputs, false, next.repaired);
  }
  next.repair_moves = scheduler::moves_to(*inputs.costs, running, next.repaired.lines);
  next.repair_reload_s = scheduler::reload_seconds(next.repair_moves, load_bytes_per_s);
  start = steady::now();
  setting.extra_seeds = {scheduler::as_seed(*inputs.pool, next.repaired.lines)};
  search_line told{flags.seed, 0, 0, 0, ""};
  next.refined.lines = search_lines(flags, how, inputs, setting, told);
  if (next.refined.lines.empty())
    return explain_failure(inputs);
  measure(flags, inputs, next.refined);
  explain_plan(inputs, how.explain, next.refined);
  told.seconds = since(start);
  next.refined.search = told;
  next.refine_moves =
      scheduler::moves_to(*inputs.costs, scheduler::name_devices(*inputs.pool, next.repaired.lines),
                          next.refined.lines);
  next.refine_reload_s = scheduler::reload_seconds(next.refine_moves, load_bytes_per_s);
  // What each plan serves within the deadline at this rate.
  next.refining_pays = scheduler::switching_pays(
      std::min(flags.rate, next.repaired.throughput_rps) * next.repaired.attainment,
      std::min(flags.rate, next.refined.throughput_rps) * next.refined.attainment, window_s,
      next.refine_reload_s);
  return next;
}

} // namespace hexgen::tools
