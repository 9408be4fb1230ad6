#include "scheduler/baselines.hpp"
#include "scheduler/batch_judge.hpp"
#include "tests/catch.hpp"
#include "tests/sanitized.hpp"
#include "tools/planning/batched_search.hpp"

#include <cmath>
#include <limits>

using namespace hexgen;
using namespace hexgen::scheduler;
using namespace hexgen::tools;

namespace {

const std::string config_folder = std::string(HEXGEN_SOURCE_DIR) + "/config/";

input_flags flags_for(const std::string& cluster) {
  input_flags flags;
  flags.cluster = config_folder + "clusters/" + cluster + ".yaml";
  flags.model = config_folder + "models/llama-2-70b.yaml";
  flags.workload = config_folder + "workloads/arena-grid.yaml";
  flags.slo_reference = config_folder + "clusters/a100-reference.yaml";
  return flags;
}

const calibrated_cost& calibrated(const cost_model& costs) {
  return dynamic_cast<const calibrated_cost&>(costs);
}

search_setting setting_for(const planning_inputs& inputs, search_goal goal) {
  search_setting setting;
  setting.goal = goal;
  setting.base = inputs.base;
  setting.policy = inputs.dispatch;
  return setting;
}

} // namespace

TEST_CASE("a simulation is given up exactly when too many are late", "[batched_search]") {
  const auto inputs = load_inputs(flags_for("paper-homogeneous"));
  const auto& costs = calibrated(*inputs->costs);
  const auto lines = one_shape(costs, 4, 1);
  REQUIRE(lines.size() == 4);
  const auto stream = make_stream(inputs->workload, 400, 3);
  int given_up = 0;
  for (const double rate : {5.0, 40.0, 120.0, 400.0}) {
    const batch_setting run{rate, inputs->dispatch, inputs->base};
    const auto whole = simulate_batches(costs, lines, inputs->workload.kinds, stream, run);
    for (const double scale : {1.2, 2.0, 4.0}) {
      const auto kept = attainment(whole.ratios, scale);
      const auto late = static_cast<std::size_t>(std::lround((1 - kept) * 400));
      // One fewer may be late than are: nothing. Just as many: the same result.
      const auto made =
          simulate_batches_within(costs, lines, inputs->workload.kinds, stream, run, scale, late);
      REQUIRE(made);
      CHECK(made->ratios == whole.ratios);
      if (late > 0) {
        ++given_up;
        CHECK_FALSE(simulate_batches_within(costs, lines, inputs->workload.kinds, stream, run,
                                            scale, late - 1));
      }
    }
  }
  CHECK(given_up > 4);
}

TEST_CASE("a judge's floor drops what is below it and changes nothing above", "[batched_search]") {
  const auto inputs = load_inputs(flags_for("paper-homogeneous"));
  const auto& costs = calibrated(*inputs->costs);
  const auto lines = one_shape(costs, 4, 1);
  constexpr double none = -std::numeric_limits<double>::infinity();
  for (const auto goal : {search_goal::attainment, search_goal::scale, search_goal::rate}) {
    auto setting = setting_for(*inputs, goal);
    setting.rate = 60;
    setting.slo_scale = 2;
    const batch_judge judge(costs, inputs->workload, setting, 300, 5);
    const double value = judge(lines, none);
    REQUIRE(std::isfinite(value));
    const double worse = value - 0.2 * std::abs(value), better = value + 0.2 * std::abs(value);
    // Rates are found to one per cent, from wherever the bisection starts.
    const double grain = goal == search_goal::rate ? 0.02 : 1e-9;
    CHECK(judge(lines, worse) == Approx(value).epsilon(grain));
    CHECK(judge(lines, better) == none);
  }
  CHECK(batch_judge(costs, inputs->workload, setting_for(*inputs, search_goal::rate), 300,
                    5)({}, none) == none);
}

TEST_CASE("capacity is judged with all pipelines full", "[batched_search]") {
  // Sixteen GPUs as four pipelines hold more at once than a short stream has requests: judged on
  // that alone they would look slower than two.
  const auto inputs = load_inputs(flags_for("paper-homogeneous"));
  const auto& costs = calibrated(*inputs->costs);
  const auto setting = setting_for(*inputs, search_goal::capacity);
  const batch_judge judge(costs, inputs->workload, setting, 500, 5);
  constexpr double none = -std::numeric_limits<double>::infinity();
  CHECK(judge(one_shape(costs, 4, 1), none) > 1.2 * judge(one_shape(costs, 8, 1), none));
}

TEST_CASE("the batched search reaches the best shape of a homogeneous pool", "[batched_search]") {
  const auto flags = flags_for(test::sanitized ? "a100-reference" : "paper-homogeneous");
  const auto inputs = load_inputs(flags);
  solve_flags how;
  how.islands = 1;
  how.iterations = 80; // few, and no clock: the same plan on any machine
  how.seconds = 1e6;
  const auto setting = setting_for(*inputs, search_goal::capacity);
  const auto layouts = layout_setting_for(*inputs);
  const auto found = search_batched(flags, how, *inputs, setting, layouts);
  REQUIRE_FALSE(found.lines.empty());
  double best = 0;
  for (const auto& shape : possible_shapes(*inputs->costs))
    best =
        std::max(best, saturated(*inputs, one_shape(*inputs->costs, shape.degree, shape.stages), 9)
                           .requests_per_s);
  CHECK(saturated(*inputs, found.lines, 9).requests_per_s > 0.97 * best);
  CHECK(check_pipelines(*found.costs, found.lines, 128, 128).empty());
  // A given size of batch is kept; threads and repetition change nothing.
  auto given = flags;
  given.concurrency = 8;
  const auto narrow = search_batched(given, how, *inputs, setting, layouts);
  CHECK(narrow.concurrency == 8);
  CHECK(search_batched(given, how, *inputs, setting, layouts).lines == narrow.lines);
}

TEST_CASE("a batched search keeps to its time", "[batched_search]") {
  const auto flags = flags_for(test::sanitized ? "paper-half-price" : "paper-full-price");
  const auto inputs = load_inputs(flags);
  solve_flags how;
  how.iterations = 100'000'000;
  how.seconds = 0.5;
  auto setting = setting_for(*inputs, search_goal::rate);
  const auto found = search_batched(flags, how, *inputs, setting, layout_setting_for(*inputs));
  CHECK(found.told.ended == "time");
  CHECK_FALSE(found.lines.empty());
}
