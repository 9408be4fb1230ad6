#include "scheduler/flow_placement.hpp"
#include "scheduler/paper_cost.hpp"
#include "scheduler/upper_bound.hpp"
#include "tests/catch.hpp"
#include "tests/scheduler/random_pool.hpp"

using namespace hexgen;
using namespace hexgen::scheduler;

TEST_CASE("flow through ranges is the narrowest cut", "[flow_placement]") {
  const std::string root = HEXGEN_SOURCE_DIR;
  const auto source =
      config::read_cluster(root + "/config/clusters/helix-24-single.yaml",
                           config::read_device_catalogue(root + "/config/devices.yaml"));
  const auto model = config::read_model_shape(root + "/config/models/llama-2-70b.yaml");
  const pool pool(source);
  const paper_cost costs(pool, model, 100, 100);
  // One chain of two, then a second first half: the second half limits.
  CHECK(max_flow(costs, {{0, 0, 40, 3}, {1, 40, 40, 2}}) == Approx(2));
  CHECK(max_flow(costs, {{0, 0, 40, 1}, {1, 40, 40, 2}, {2, 0, 40, 0.5}}) == Approx(1.5));
  // Overlapping ranges hand over; a gap does not.
  CHECK(max_flow(costs, {{0, 0, 50, 3}, {1, 40, 40, 2}}) == Approx(2));
  CHECK(max_flow(costs, {{0, 0, 39, 3}, {1, 40, 40, 2}}) == 0);
  // A diamond: two middles share.
  CHECK(max_flow(costs, {{0, 0, 20, 3}, {1, 20, 40, 1}, {2, 20, 40, 1.5}, {3, 60, 20, 9}}) ==
        Approx(2.5));
}

TEST_CASE("placement by flow stays below the bound and above its start", "[flow_placement]") {
  std::mt19937_64 random(31);
  for (int i = 0; i < 40; ++i) {
    const auto model = test::random_model(random, 20);
    const auto source = test::random_cluster(random, 10, model);
    const pool pool(source);
    const paper_cost costs(pool, model, 100, 60);
    const auto workload = config::fixed_workload(100, 60);
    const auto none = place_by_flow(costs, workload.kinds, 0, 1);
    const auto plan = place_by_flow(costs, workload.kinds, 400, 1);
    INFO("case " << i);
    CHECK(plan.requests_per_s >= none.requests_per_s);
    CHECK(plan.requests_per_s == Approx(max_flow(costs, plan.ranges)));
    for (const auto& range : plan.ranges) {
      CHECK(range.first_layer >= 0);
      CHECK(range.first_layer + range.layers <= model.layers);
    }
  }
}
