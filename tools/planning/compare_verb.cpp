#include "config/error.hpp"
#include "scheduler/baselines.hpp"
#include "scheduler/batch_simulator.hpp"
#include "scheduler/flow_placement.hpp"
#include "scheduler/upper_bound.hpp"
#include "tools/planning/portfolio.hpp"
#include "tools/planning/verbs.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace hexgen::tools {

namespace {

using scheduler::layout_rule;

constexpr double share = 0.99;
const std::vector<double> scales{3, 5, 8, 15};
const std::vector<double> rates{1.02, 1.53, 2.00, 3.01, 3.94};

struct compare_flags {
  input_flags inputs;
  double seconds_each = 1.5;
  std::size_t requests = 20'000;
  bool progress = false;
};

struct row {
  std::string name;
  std::vector<double> values;
  std::string expected; // the reference simulation's figures, or the paper's
};

std::string numbers(const std::vector<double>& values) {
  std::string text;
  for (const double value : values) {
    char one[32];
    std::snprintf(one, sizeof one, "%s%.3g", text.empty() ? "" : " / ", value);
    text += one;
  }
  return text;
}

/// Inputs of every pool, and their arms.
struct evaluation {
  std::vector<std::unique_ptr<planning_inputs>> inputs;
  std::vector<std::unique_ptr<arm>> arms;

  arm& add(const compare_flags& flags, const planning_inputs& of, const std::string& name) {
    arms.push_back(std::make_unique<arm>(name, of, flags.requests, flags.inputs.seed + 4242));
    return *arms.back();
  }
  const planning_inputs& load(const compare_flags& flags, const std::string& cluster) {
    auto one = flags.inputs;
    one.cluster = cluster;
    inputs.push_back(load_inputs(one));
    return *inputs.back();
  }
};

std::vector<double> at_scales(const arm& of, double target) {
  std::vector<double> found;
  for (const double scale : scales)
    found.push_back(of.largest_rate(scale, target));
  return found;
}

std::vector<double> ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> found;
  for (std::size_t i = 0; i < a.size(); ++i)
    found.push_back(b[i] > 0 ? a[i] / b[i] : 0);
  return found;
}

void add_shapes(arm& into) {
  for (const auto& shape : scheduler::possible_shapes(*into.inputs().costs))
    into.add(scheduler::one_shape(*into.inputs().costs, shape.degree, shape.stages));
}

/// Seconds of one request (128, 64) on the case study's layouts: slow arm over asymmetric arm.
double case_study(const compare_flags& flags, const std::string& cluster,
                  const std::vector<std::pair<int, int>>& slow) {
  auto one = flags.inputs;
  one.cluster = cluster;
  one.workload.clear();
  one.prompt_tokens = 128;
  one.output_tokens = 64;
  const auto inputs = load_inputs(one);
  const auto time = [&](const std::vector<std::pair<int, int>>& stages) {
    scheduler::pipeline line;
    int device = 0, layer = 0;
    for (const auto& [degree, layers] : stages) {
      scheduler::stage made;
      for (int i = 0; i < degree; ++i)
        made.devices.push_back(device++);
      made.first_layer = layer;
      made.layers = layers;
      layer += layers;
      line.push_back(std::move(made));
    }
    return mean_latency(*inputs, line);
  };
  return time(slow) / time({{4, 48}, {2, 20}, {2, 12}});
}

/// The pool without its last four devices of the first node, as when four GPUs go offline.
config::cluster without_four(config::cluster cluster) {
  int left = 4;
  for (auto& group : cluster.nodes.front().devices) {
    const int taken = std::min(left, group.count);
    group.count -= taken;
    left -= taken;
  }
  return cluster;
}

class table {
public:
  explicit table(const compare_flags& flags) : flags_(flags) {}

  std::vector<row> run() {
    const auto& a100 = all_.load(flags_, "paper-homogeneous");
    const auto& half_pool = all_.load(flags_, "paper-half-price");
    const auto& full_pool = all_.load(flags_, "paper-full-price");
    auto& tp8 = all_.add(flags_, a100, "A100 2xTP8");
    tp8.add(scheduler::one_shape(*a100.costs, 8, 1));
    auto& tp4 = all_.add(flags_, a100, "A100 4xTP4");
    tp4.add(scheduler::one_shape(*a100.costs, 4, 1));
    auto& best = all_.add(flags_, a100, "A100 best");
    search(best, layout_rule::free);
    auto& half = all_.add(flags_, half_pool, "half price");
    search(half, layout_rule::free);
    auto& full = all_.add(flags_, full_pool, "full price");
    search(full, layout_rule::free);
    auto& shapes = all_.add(flags_, full_pool, "full price, one shape everywhere");
    add_shapes(shapes);
    auto& half_shapes = all_.add(flags_, half_pool, "half price, one shape everywhere");
    add_shapes(half_shapes);
    auto& even = all_.add(flags_, full_pool, "full price, symmetric per pipeline");
    search(even, layout_rule::even);
    auto& swarm = all_.add(flags_, half_pool, "half price, Petals-like");
    swarm.add(scheduler::pipeline_only(*half_pool.costs));
    capacities(tp4, best, half, full);
    deadlines_and_rates(tp8, tp4, best, half, full);
    asymmetry(half, full, shapes, half_shapes, even, swarm);
    offline(full);
    if (flags_.inputs.mode == "paper")
      study();
    else
      helix();
    return std::move(rows_);
  }

private:
  void search(arm& into, layout_rule rule) {
    if (flags_.progress)
      std::fprintf(stderr, "searching: %s\n", into.name().c_str());
    into.search(scales, rates, rule, flags_.seconds_each, flags_.progress);
  }

  void add(std::string name, std::vector<double> values, std::string expected) {
    if (flags_.inputs.mode != "paper")
      expected.clear();
    rows_.push_back({std::move(name), std::move(values), std::move(expected)});
  }

  void capacities(const arm& tp4, const arm& best, const arm& half, const arm& full) {
    add("mean single request, A100 TP8 / TP4, s",
        {all_.arms[0]->mean_latency(), tp4.mean_latency()}, "1.631 / 1.927");
    add("capacity, req/s: A100 4xTP4 / best / half / full",
        {tp4.capacity(), best.capacity(), half.capacity(), full.capacity()},
        "2.08 / 2.56 / >=2.80 / >=4.85");
    const auto bound = [](const arm& of) {
      return scheduler::throughput_bound(*of.inputs().costs, of.inputs().workload.kinds);
    };
    const auto by_flow = [&](const arm& of) {
      return scheduler::place_by_flow(*of.inputs().costs, of.inputs().workload.kinds, 20'000,
                                      flags_.inputs.seed)
          .requests_per_s;
    };
    add("capacity, req/s, Helix-like (shared layers, max flow): A100 / half / full",
        {by_flow(best), by_flow(half), by_flow(full)}, "");
    add("upper bound, req/s: A100 / half / full", {bound(best), bound(half), bound(full)}, "");
  }

  void deadlines_and_rates(const arm& tp8, const arm& tp4, const arm& best, const arm& half,
                           const arm& full) {
    const struct {
      const arm* of;
      const char* expected;
    } arms[] = {{&tp8, "0.39 / 0.68 / 0.83 / 1.02"},
                {&tp4, "1.02 / 1.43 / 1.63 / 1.87"},
                {&best, "1.02 / 1.63 / 2.00 / 2.29"},
                {&half, "0.55 / 1.53 / 2.14 / 2.63"},
                {&full, "1.87 / 3.01 / 4.22 / 4.51"}};
    std::vector<std::vector<double>> rate;
    for (const auto& one : arms) {
      rate.push_back(at_scales(*one.of, share));
      add("rate at 99 %, scale 3/5/8/15: " + one.of->name(), rate.back(), one.expected);
    }
    const auto scale_row = [&](const arm& of, std::size_t count) {
      std::vector<double> found;
      for (std::size_t i = 0; i < count; ++i)
        found.push_back(of.smallest_scale(rates[i], share));
      return found;
    };
    add("smallest scale 99 %, rate 1.02/1.53/2/3.01/3.94: full", scale_row(full, 5),
        "2.43 / 2.59 / 3.18 / 4.54 / 6.64");
    add("the same, 1.02/1.53/2: half", scale_row(half, 3), "3.83 / 4.99 / 6.94");
    add("the same: A100 4xTP4", scale_row(tp4, 3), "2.90 / 5.29 / 31");
    add("rate ratio full / 4xTP4 (paper: up to 4, mean 2)", ratio(rate[4], rate[1]),
        ">= 2.0 from scale 5");
    add("rate ratio full / 2xTP8", ratio(rate[4], rate[0]), ">= 3.8");
    add("rate ratio full / best A100", ratio(rate[4], rate[2]), "1.6 - 2.1");
    add("rate ratio half / best A100 (paper: parity)", ratio(rate[3], rate[2]),
        ">= 1.0 from scale 8");
    std::vector<double> deadline;
    const double base = tp4.largest_rate(30, share);
    for (const double load : {0.3, 0.5, 0.75, 0.9})
      deadline.push_back(tp4.smallest_scale(load * base, share) /
                         full.smallest_scale(load * base, share));
    add("deadline 4xTP4 / full at 30/50/75/90 % load (paper: up to 2.3, mean 1.5)", deadline,
        "0.71 / 1.16 / 1.84 / >=2.2");
  }

  void asymmetry(const arm& half, const arm& full, const arm& shapes, const arm& half_shapes,
                 const arm& even, const arm& swarm) {
    add("rate at 99 %: full, one shape everywhere", at_scales(shapes, share),
        "1.43 / 2.29 / 3.22 / 3.68");
    add("rate ratio asymmetric / one shape: full (paper: up to 2)",
        ratio(at_scales(full, share), at_scales(shapes, share)), "1.0 - 1.5");
    add("rate ratio asymmetric / one shape: half",
        ratio(at_scales(half, share), at_scales(half_shapes, share)), "1.0 - 1.5");
    add("rate ratio asymmetric / symmetric per pipeline: full",
        ratio(at_scales(full, share), at_scales(even, share)), "1.0 - 1.1");
    add("rate at 99 %, scale 30: half / Petals-like (paper: up to 10x)",
        {half.largest_rate(30, share), swarm.largest_rate(30, share)}, "");
  }

  /// Four GPUs leave: what a new search reaches of the full pool's rate.
  void offline(const arm& full) {
    auto one = flags_.inputs;
    one.cluster = "paper-full-price";
    all_.inputs.push_back(load_inputs(one, without_four(full.inputs().cluster)));
    auto& left = all_.add(flags_, *all_.inputs.back(), "full price, 4 GPUs offline");
    left.search({5}, {2.0}, layout_rule::free, flags_.seconds_each, flags_.progress);
    add("rate at 99 %, scale 5: full / 4 GPUs offline",
        {full.largest_rate(5, share), left.largest_rate(5, share)}, "small drop");
    // Eight: one machine.
    auto smaller = without_four(without_four(full.inputs().cluster));
    all_.inputs.push_back(load_inputs(one, smaller));
    auto& less = all_.add(flags_, *all_.inputs.back(), "full price, 8 GPUs offline");
    less.search({5}, {2.0}, layout_rule::free, flags_.seconds_each, flags_.progress);
    add("rate at 99 %, scale 5: full / 8 GPUs offline",
        {full.largest_rate(5, share), less.largest_rate(5, share)}, "small drop");
  }

  void study() {
    add("case study: tuned PP8 over [4,2,2] 48/20/12, 1 ms (paper: 2)",
        {case_study(flags_, "paper-case-study",
                    {{1, 13}, {1, 13}, {1, 13}, {1, 13}, {1, 8}, {1, 8}, {1, 6}, {1, 6}})},
        "2.41");
    add("case study: PP2xTP4 40/40 over [4,2,2], 5 ms (paper: 19)",
        {case_study(flags_, "paper-case-study-5ms", {{4, 40}, {4, 40}})}, "19.7");
  }

  /// Generated tokens per second of a saturated cluster: the best of a few design batches.
  double offline_tokens(const std::string& cluster) {
    double best = 0;
    for (const int concurrency : {8, 16, 32, 64, 128}) {
      auto one = flags_.inputs;
      one.cluster = cluster;
      one.workload = "azure-conversation";
      one.concurrency = concurrency;
      const auto inputs = load_inputs(one);
      const auto* costs = dynamic_cast<const scheduler::calibrated_cost*>(inputs->costs.get());
      solve_flags how;
      how.objective = "capacity";
      how.seconds = flags_.seconds_each;
      const auto found = solve(one, how, *inputs);
      const auto* plan = std::get_if<planned>(&found);
      if (plan == nullptr || costs == nullptr)
        continue;
      // All at once: the queue never runs dry.
      const scheduler::batch_setting setting{1e6, inputs->dispatch, inputs->base};
      const auto stream = scheduler::make_stream(inputs->workload, 1500, 11);
      best = std::max(best, scheduler::simulate_batches(*costs, plan->lines, inputs->workload.kinds,
                                                        stream, setting)
                                .tokens_per_s);
    }
    return best;
  }

  /// Llama-2-70B, offline, on Helix's clusters and profiled tables.
  void helix() {
    rows_.push_back({"decode tokens/s, saturated, 24 nodes, one region",
                     {offline_tokens("helix-24-single")},
                     "Helix 252.1, Swarm 124.7, separate 124.3"});
    rows_.push_back({"decode tokens/s, saturated, 24 nodes, three regions",
                     {offline_tokens("helix-24-geo")},
                     "Helix 98.0, Swarm 51.9, separate 61.9"});
    rows_.push_back({"decode tokens/s, saturated, 42 nodes",
                     {offline_tokens("helix-42")},
                     "Helix 645.6, Swarm 473.2, separate 219.3"});
  }

  const compare_flags& flags_;
  evaluation all_;
  std::vector<row> rows_;
};

int run(compare_flags& flags) {
  watch_interrupt();
  table made(flags);
  const auto rows = made.run();
  if (flags.inputs.json) {
    auto all = nlohmann::ordered_json::array();
    for (const auto& one : rows)
      all.push_back({{"name", one.name}, {"values", one.values}, {"expected", one.expected}});
    std::puts(nlohmann::ordered_json{{"mode", flags.inputs.mode},
                                     {"model", flags.inputs.model},
                                     {"workload", flags.inputs.workload},
                                     {"rows", all}}
                  .dump(2)
                  .c_str());
    return 0;
  }
  std::printf("%s, %s, %s mode, %s occupancy, %s dispatch; deadlines from one node of 8 A100 at "
              "degree 8\n\n",
              flags.inputs.model.c_str(), flags.inputs.workload.c_str(), flags.inputs.mode.c_str(),
              flags.inputs.occupancy.c_str(), flags.inputs.dispatch.c_str());
  std::printf("%-74s %-38s %s\n", "", "here", "reference simulation");
  for (const auto& one : rows)
    std::printf("%-74s %-38s %s\n", one.name.c_str(), numbers(one.values).c_str(),
                one.expected.c_str());
  return 0;
}

} // namespace

int compare_main(int argc, char** argv) {
  CLI::App app{"The paper's evaluation and the baselines, in one table", "hexgen compare"};
  compare_flags flags;
  flags.inputs.mode = "paper";
  flags.inputs.model = "llama-2-70b";
  flags.inputs.workload = "arena-grid";
  add_input_flags(app, flags.inputs, false);
  app.add_option("--seconds-each", flags.seconds_each, "for each of about 45 searches")
      ->check(CLI::Range(0.05, 600.0))
      ->capture_default_str();
  app.add_option("--requests", flags.requests, "simulated for each figure")
      ->check(CLI::Range(1000, 10'000'000))
      ->capture_default_str();
  app.add_flag("--progress", flags.progress, "tell of searches on stderr");
  if (const int code = parse_arguments(app, argc, argv); code != 0)
    return code - 1;
  try {
    return run(flags);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hexgen compare: %s\n", error.what());
    return 1;
  }
}

} // namespace hexgen::tools
