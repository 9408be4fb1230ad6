#include "scheduler/layout_optimum.hpp"
#include "scheduler/paper_cost.hpp"
#include "tests/catch.hpp"
#include "tests/scheduler/random_pool.hpp"

#include <cstdlib>
#include <limits>

using namespace hexgen;
using namespace hexgen::scheduler;

namespace {

/// Every ordered list of stages over machines, every legal degree, every layer composition, priced
/// by the cost model itself.
class brute_force {
public:
  brute_force(const cost_model& costs, int prompt, int output)
      : costs_(costs), prompt_(prompt), output_(output) {
    for (const auto& machine : costs.devices().machines())
      free_.push_back(machine.devices);
    extend(0);
  }
  double best = std::numeric_limits<double>::infinity();

private:
  void extend(int placed) {
    const int layers = costs_.model().layers;
    if (placed == layers) {
      if (check_pipelines(costs_, {line_}, prompt_, output_).empty())
        best = std::min(best, time_pipeline(costs_, line_, prompt_, output_).latency_s);
      return;
    }
    for (auto& free : free_)
      for (const int degree : costs_.degrees()) {
        if (degree > static_cast<int>(free.size()))
          break;
        const std::vector<int> devices(free.end() - degree, free.end());
        const int kind = costs_.devices().kind_of(devices.front());
        const int most = std::min(layers - placed, costs_.layer_cap(kind, degree, {}));
        if (!line_.empty() &&
            !std::isfinite(costs_.hop(line_.back().devices, devices, prompt_, output_)))
          continue;
        free.resize(free.size() - static_cast<std::size_t>(degree));
        for (int count = 1; count <= most; ++count) {
          line_.push_back({devices, placed, count});
          extend(placed + count);
          line_.pop_back();
        }
        free.insert(free.end(), devices.begin(), devices.end());
      }
  }

  const cost_model& costs_;
  int prompt_, output_;
  std::vector<std::vector<int>> free_;
  pipeline line_;
};

} // namespace

TEST_CASE("the pipeline of least latency equals brute force", "[layout_optimum]") {
  std::mt19937_64 random(5);
  const bool full = std::getenv("HEXGEN_LONG") != nullptr;
  const int cases = full ? 4000 : 2000;
  int feasible = 0;
  for (int i = 0; i < cases; ++i) {
    // The largest cases cost brute force seconds: some in the plain run, all in the long one.
    const bool large = full || i % 40 == 0;
    const auto model = test::random_model(random, large ? 12 : 7);
    const auto source = test::random_cluster(random, large ? 6 : 5, model);
    const pool pool(source);
    const int prompt = 1 + static_cast<int>(random() % 200);
    const int output = 1 + static_cast<int>(random() % 100);
    const paper_cost costs(pool, model, prompt, output);
    const auto found = least_latency_pipeline(costs, prompt, output);
    const brute_force all(costs, prompt, output);
    INFO("case " << i);
    REQUIRE(found.has_value() == (all.best < std::numeric_limits<double>::infinity()));
    if (!found)
      continue;
    ++feasible;
    REQUIRE(check_pipelines(costs, {*found}, prompt, output).empty());
    REQUIRE(time_pipeline(costs, *found, prompt, output).latency_s ==
            Approx(all.best).epsilon(1e-9));
  }
  REQUIRE(feasible > cases / 4);
}

TEST_CASE("the least latency of the case study needs the four A6000 alone", "[layout_optimum]") {
  const std::string root = HEXGEN_SOURCE_DIR;
  const auto source =
      config::read_cluster(root + "/config/clusters/paper-case-study.yaml",
                           config::read_device_catalogue(root + "/config/devices.yaml"));
  const auto model = config::read_model_shape(root + "/config/models/llama-2-70b.yaml");
  const pool pool(source);
  const paper_cost costs(pool, model, 128, 64);
  const auto found = least_latency_pipeline(costs, 128, 64);
  REQUIRE(found.has_value());
  REQUIRE(found->size() == 1);
  CHECK(found->front().devices == std::vector<int>{0, 1, 2, 3});
  CHECK(time_pipeline(costs, *found, 128, 64).latency_s == Approx(3.395494).margin(1e-6));
}
