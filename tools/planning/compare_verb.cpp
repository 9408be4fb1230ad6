#include "config/error.hpp"
#include "scheduler/baselines.hpp"
#include "scheduler/flow_placement.hpp"
#include "scheduler/upper_bound.hpp"
#include "tools/planning/helix_compare.hpp"
#include "tools/planning/portfolio.hpp"
#include "tools/planning/verbs.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace hexgen::tools {

namespace {

using scheduler::layout_rule;

constexpr double share = 0.99;
const std::vector<double> scales{3, 5, 8, 15};
/// Requests per second at which smallest scales are asked for; batching serves ten times as many.
const std::vector<double> paper_rates{1.02, 1.53, 2.00, 3.01, 3.94};
const std::vector<double> batched_rates{5, 10, 15, 20, 30};
constexpr std::size_t half_rates = 3; // of them, what the smaller pools serve too

// The reference simulation judged its plans on traces so short; how far figures differ between
// such traces.
constexpr std::size_t traces = 20, trace_requests = 4000;

struct compare_flags {
  input_flags inputs;
  double seconds_each = 1.5;
  std::size_t requests = 100'000;
  bool progress = false;
};

struct row {
  std::string name;
  std::vector<double> values;
  std::string expected; // the reference simulation's figures
  std::string paper;    // and the paper's
  std::string spread;   // of the values over short traces
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
    arms.push_back(std::make_unique<arm>(name, flags.inputs, of, flags.requests));
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
    found.push_back(a[i] / b[i]);
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
  explicit table(const compare_flags& flags)
      : flags_(flags), paper_(flags.inputs.mode == "paper"),
        rates_(paper_ ? paper_rates : batched_rates) {}

  std::vector<row> run() {
    const auto& a100 = all_.load(flags_, "paper-homogeneous");
    const auto& half_pool = all_.load(flags_, "paper-half-price");
    const auto& full_pool = all_.load(flags_, "paper-full-price");
    if (paper_)
      for (std::size_t i = 0; i < traces; ++i)
        short_.push_back(
            scheduler::make_stream(a100.workload, trace_requests, flags_.inputs.seed + 5000 + i));
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
    auto& petals = all_.add(flags_, half_pool, "half price, Petals-like");
    petals.add(scheduler::pipeline_only(*half_pool.costs));
    capacities(tp4, best, half, full);
    deadlines_and_rates(tp8, tp4, best, half, full);
    asymmetry(half, full, shapes, half_shapes, even, petals);
    offline(full);
    if (paper_)
      study();
    else
      helix();
    return std::move(rows_);
  }

private:
  void search(arm& into, layout_rule rule) {
    if (flags_.progress)
      std::fprintf(stderr, "searching: %s\n", into.name().c_str());
    // Batched, a search costs seconds, and the plans for scales reach the rates' scales too.
    into.search(scales, paper_ ? rates_ : std::vector<double>{}, rule, flags_.seconds_each,
                flags_.progress);
  }

  void add(std::string name, std::vector<double> values, std::string expected,
           std::string paper = {}) {
    if (!paper_)
      expected.clear();
    rows_.push_back(
        {std::move(name), std::move(values), std::move(expected), std::move(paper), {}});
  }

  /// Tenth to ninetieth percentile over the short traces, for every value of the last row.
  template <class Value>
  void add_spread(std::size_t count, Value&& value) {
    for (std::size_t i = 0; i < count && !short_.empty(); ++i) {
      std::vector<double> found;
      for (const auto& stream : short_)
        found.push_back(value(stream, i));
      std::sort(found.begin(), found.end());
      char text[48];
      std::snprintf(text, sizeof text, "%s%.3g-%.3g", i == 0 ? "" : " / ", found[found.size() / 10],
                    found[found.size() - 1 - found.size() / 10]);
      rows_.back().spread += text;
    }
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
    const auto by_stages = [&](const arm& of) {
      return scheduler::place_by_stages(*of.inputs().costs, of.inputs().workload.kinds)
          .requests_per_s;
    };
    add("capacity, req/s, Helix-like (shared layers, max flow): A100 / half / full",
        {by_flow(best), by_flow(half), by_flow(full)}, "");
    add("capacity, req/s, Swarm-like (equal stages): A100 / half / full",
        {by_stages(best), by_stages(half), by_stages(full)}, "");
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
      add_spread(scales.size(), [&](const auto& stream, std::size_t i) {
        return one.of->largest_rate(stream, scales[i], share);
      });
    }
    const auto add_scales = [&](const std::string& name, const arm& of, std::size_t count,
                                const char* expected) {
      std::vector<double> found;
      for (std::size_t i = 0; i < count; ++i)
        found.push_back(of.smallest_scale(rates_[i], share));
      add("smallest scale 99 %, rate " +
              numbers({rates_.begin(), rates_.begin() + static_cast<std::ptrdiff_t>(count)}) +
              ": " + name,
          found, expected);
      add_spread(count, [&](const auto& stream, std::size_t i) {
        return of.smallest_scale(stream, rates_[i], share);
      });
    };
    add_scales("full", full, rates_.size(), "2.43 / 2.59 / 3.18 / 4.54 / 6.64");
    add_scales("half", half, half_rates, "3.83 / 4.99 / 6.94");
    add_scales("A100 4xTP4", tp4, half_rates, "2.90 / 5.29 / 31");
    add("rate ratio full / 4xTP4", ratio(rate[4], rate[1]), ">= 2.0 from scale 5",
        "up to 4, mean 2");
    add("rate ratio full / 2xTP8", ratio(rate[4], rate[0]), ">= 3.8", "up to 4, mean 2");
    add("rate ratio full / best A100", ratio(rate[4], rate[2]), "1.6 - 2.1", "up to 4, mean 2");
    add("rate ratio half / best A100", ratio(rate[3], rate[2]), ">= 1.0 from scale 8", "parity");
    std::vector<double> deadline;
    const double base = tp4.largest_rate(30, share);
    for (const double load : {0.3, 0.5, 0.75, 0.9})
      deadline.push_back(tp4.smallest_scale(load * base, share) /
                         full.smallest_scale(load * base, share));
    add("deadline 4xTP4 / full at 30/50/75/90 % load", deadline, "0.71 / 1.16 / 1.84 / >=2.2",
        "up to 2.3, mean 1.5");
  }

  void asymmetry(const arm& half, const arm& full, const arm& shapes, const arm& half_shapes,
                 const arm& even, const arm& petals) {
    const auto rate = at_scales(full, share), half_rate = at_scales(half, share);
    const auto one_shape = at_scales(shapes, share);
    add("rate at 99 %: full, one shape everywhere", one_shape, "1.43 / 2.29 / 3.22 / 3.68");
    add("rate ratio asymmetric / one shape: full", ratio(rate, one_shape), "1.0 - 1.5", "up to 2");
    add("rate ratio asymmetric / one shape: half", ratio(half_rate, at_scales(half_shapes, share)),
        "1.0 - 1.5", "up to 2");
    add("rate ratio asymmetric / symmetric per pipeline: full", ratio(rate, at_scales(even, share)),
        "1.0 - 1.1", "up to 2");
    std::vector<double> deadline;
    for (const double rate_here : rates_)
      deadline.push_back(shapes.smallest_scale(rate_here, share) /
                         full.smallest_scale(rate_here, share));
    add("deadline one shape / asymmetric, rate " + numbers(rates_) + ": full", deadline,
        "1.0 - 1.5", "up to 1.8");
    std::vector<double> there;
    for (const double scale : {15.0, 20.0, 30.0, 90.0})
      there.push_back(half.largest_rate(scale, share) / petals.largest_rate(scale, share));
    add("rate ratio half / Petals-like, scale 15/20/30/90", there, "", "up to 10");
  }

  /// GPUs leave: what a new search reaches of the full pool's rate.
  void offline(const arm& full) {
    auto one = flags_.inputs;
    one.cluster = "paper-full-price";
    std::vector<double> rate{full.largest_rate(5, share)};
    auto left = full.inputs().cluster;
    for (int times = 0; times < 2; ++times) {
      left = without_four(left);
      all_.inputs.push_back(load_inputs(one, left));
      auto& searched = all_.add(flags_, *all_.inputs.back(), "full price, GPUs offline");
      searched.search({5}, {}, layout_rule::free, flags_.seconds_each, flags_.progress);
      rate.push_back(searched.largest_rate(5, share));
    }
    add("rate at 99 %, scale 5: full / 4 / 8 GPUs offline", rate, "", "small drop");
  }

  void study() {
    add("case study: tuned PP8 over [4,2,2] 48/20/12, 1 ms",
        {case_study(flags_, "paper-case-study",
                    {{1, 13}, {1, 13}, {1, 13}, {1, 13}, {1, 8}, {1, 8}, {1, 6}, {1, 6}})},
        "2.41", "2");
    add("case study: PP2xTP4 40/40 over [4,2,2], 5 ms",
        {case_study(flags_, "paper-case-study-5ms", {{4, 40}, {4, 40}})}, "19.7", "19");
  }

  /// Llama-2-70B, offline, on Helix's clusters and profiled tables. The last column is Helix's.
  void helix() {
    const struct {
      const char *name, *cluster;
      double helix, swarm, separate;
    } clusters[] = {{"24 nodes, one region", "helix-24-single", 252.1, 124.7, 124.3},
                    {"24 nodes, three regions", "helix-24-geo", 98.0, 51.9, 61.9},
                    {"42 nodes", "helix-42", 645.6, 473.2, 219.3}};
    for (const auto& one : clusters) {
      if (flags_.progress)
        std::fprintf(stderr, "searching: %s\n", one.name);
      auto flags = flags_.inputs;
      flags.cluster = one.cluster;
      flags.model = "llama-2-70b";
      flags.workload = "azure-conversation";
      const auto found = compare_offline(flags, flags_.seconds_each, flags_.progress);
      const std::string name = one.name;
      add(name + ", tokens/s simulated: ours / each type alone", {found.ours, found.separate}, "",
          "Helix " + numbers({one.helix}) + " / alone " + numbers({one.separate}));
      add(name + ", tokens/s by flow: ours / Helix-like / Swarm-like",
          {found.ours_flow, found.shared_flow, found.stages_flow}, "",
          "Helix " + numbers({one.helix}) + " / Swarm " + numbers({one.swarm}));
      add(name + ", ratio ours / alone, ours / Swarm-like",
          {found.ours / found.separate, found.ours_flow / found.stages_flow}, "",
          "Helix's " + numbers({one.helix / one.separate, one.helix / one.swarm}));
    }
  }

  const compare_flags& flags_;
  bool paper_;
  const std::vector<double>& rates_;
  std::vector<scheduler::request_stream> short_;
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
      all.push_back({{"name", one.name},
                     {"values", one.values},
                     {"expected", one.expected},
                     {"paper", one.paper},
                     {"spread", one.spread}});
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
  const bool paper = flags.inputs.mode == "paper";
  const auto line = [&](const char* name, const std::string& here, const std::string& expected,
                        const std::string& other) {
    if (paper)
      std::printf("%-76s %-34s %-34s %s\n", name, here.c_str(), expected.c_str(), other.c_str());
    else
      std::printf("%-76s %-34s %s\n", name, here.c_str(), other.c_str());
  };
  line("", "here", "reference simulation", "paper");
  for (const auto& one : rows) {
    line(one.name.c_str(), numbers(one.values), one.expected, one.paper);
    if (!one.spread.empty())
      std::printf("%76s %s\n", "", one.spread.c_str());
  }
  if (paper)
    std::printf(
        "\nThe line below a row of rates or scales: the tenth to ninetieth percentile on %zu "
        "traces of %zu requests, as short as the reference simulation's.\n",
        traces, trace_requests);
  else
    std::puts(
        "\nSteps are formed by the engine's batching policy; the paper, without batching, has "
        "no figure for such a run: its own stand beside as they are.");
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
  app.add_option("--seconds-each", flags.seconds_each, "for each of about 45 searches at least")
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
