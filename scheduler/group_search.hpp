// The search over groups: the paper's genetic algorithm with good seeds, judged by the simulator.
#pragma once

#include "scheduler/grouping.hpp"
#include "scheduler/simulator.hpp"

#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace hexgen::scheduler {

/// What the search improves.
enum class search_goal {
  attainment, // share of requests within slo_scale at `rate`; equal ones by the scale they need
  scale,      // smallest scale that `share` keeps at `rate`
  rate,       // largest rate at which `share` keeps slo_scale
  capacity,   // requests per second without deadlines
  replicas    // as many pipelines as possible, equal ones by capacity
};

struct search_setting {
  search_goal goal = search_goal::attainment;
  double rate = 1, slo_scale = 5, share = 0.99;
  dispatch policy = dispatch::earliest_finish;
  std::size_t requests = 1000;         // simulated for every candidate
  std::size_t final_requests = 20'000; // for the ranking of the best at the end
  int iterations = 20'000;
  int epoch = 800;       // iterations without improvement before it starts elsewhere
  int stagnation = 8000; // and before it stops
  int most_replicas = 0; // 0: any number
  bool across_regions = false;
  bool seeds_only = false;   // no iterations: what the starting points reach
  bool random_moves = false; // one random device at a time, as the paper's ablation
  double enough = std::numeric_limits<double>::infinity(); // the value at which it stops
  std::uint64_t seed = 1;
  std::vector<float> base; // by kind: reference latency
  /// Asked now and then; true ends the search with the best so far.
  std::function<bool()> stop;
  /// Asked while the best are ranked on the long stream; true leaves the others as they are.
  std::function<bool()> stop_ranking;
  /// Called at improvements with iterations done and the value reached.
  std::function<void(int, double)> progress;
  std::vector<grouping> extra_seeds;
  /// Takes the place of the closed form where set: greater is better, -infinity where it is below
  /// the floor; true: judge on a long stream that no candidate was fitted to.
  std::function<double(const grouping&, double, bool)> judge;
  std::size_t ranked = 20; // candidates judged again at the end
};

struct search_result {
  grouping best;
  double value = 0; // attainment, rate or capacity: greater is better; scale: smaller
  int iterations = 0;
  int evaluations = 0;
  std::string ended;            // why
  std::vector<grouping> ranked; // `best` and those behind it, in order
};

/// Deterministic for a seed as long as `stop` never ends it.
[[nodiscard]] search_result search_groups(layout_book& book, const config::workload& workload,
                                          const search_setting& setting);

/// When a simulation under a setting can no longer beat `floor`: with more than `most_late` of
/// `count` requests beyond `scale`.
struct hopeless {
  double scale = std::numeric_limits<double>::infinity();
  std::size_t most_late = 0;
};
[[nodiscard]] hopeless hopeless_below(const search_setting& setting, double floor,
                                      std::size_t count);

/// The value of simulated latencies over base for the goals attainment and scale; greater is
/// better. Reorders the ratios.
[[nodiscard]] double value_of(const search_setting& setting, std::vector<float>& ratios);

/// Simulates one individual; greater is better. -infinity when no group holds the model or it is
/// below the floor.
class group_judge {
public:
  group_judge(layout_book& book, const config::workload& workload, const search_setting& setting,
              std::size_t requests, std::uint64_t seed);
  [[nodiscard]] double operator()(const grouping& individual,
                                  double floor = -std::numeric_limits<double>::infinity());
  /// The same for pipelines whose services are known.
  [[nodiscard]] double operator()(const std::vector<const line_service*>& lines,
                                  double floor = -std::numeric_limits<double>::infinity());
  [[nodiscard]] int evaluations() const { return evaluations_; }

private:
  layout_book& book_;
  const search_setting& setting_;
  request_stream stream_;
  std::vector<float> ratios_;
  int evaluations_ = 0;
};

/// The lines, or a baseline's plan where the goal values that more on a long stream that no search
/// has seen: a plan is never worse than what the baselines are known to make.
[[nodiscard]] std::vector<pipeline> or_baseline(layout_book& book, const config::workload& workload,
                                                const search_setting& setting, occupancy mode,
                                                std::vector<pipeline> lines);

} // namespace hexgen::scheduler
