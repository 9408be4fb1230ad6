#include "scheduler/serving_cost.hpp"
#include "scheduler/serving_groups.hpp"
#include "scheduler/serving_planner.hpp"
#include "tests/catch.hpp"
#include "tests/scheduler/serving_brute_force.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

using namespace hexgen::scheduler;
using hexgen::scheduler::testing::brute_force;
using hexgen::scheduler::testing::world;

namespace {

serving_device device(std::string node, std::uint32_t index, std::uint64_t memory, double decode) {
  return {std::move(node), index, memory, decode, decode / 8, decode * 2, false};
}

world random_world(std::mt19937_64& random) {
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  world w;
  w.model.layers = pick(1, 8);
  w.model.hidden = 64 * pick(1, 40);
  w.model.kv_heads = pick(1, 4);
  w.model.layer_bytes = 1000;
  w.model.embedding_bytes = static_cast<std::uint64_t>(pick(0, 2000));
  w.model.head_bytes = static_cast<std::uint64_t>(pick(0, 2000));
  w.model.kv_bytes_per_token_layer = static_cast<std::uint64_t>(pick(0, 4));
  w.model.activation_bytes = static_cast<std::uint64_t>(pick(0, 300));
  w.goal.kv_tokens = pick(0, 200);
  w.goal.prompt_tokens = pick(1, 200);
  w.goal.output_tokens = pick(1, 100);
  w.goal.max_replicas = 1;
  w.goal.tensor_parallel_overhead_us = pick(0, 60);
  const int nodes = pick(1, 3), count = pick(1, 5);
  for (int i = 0; i < count; ++i) {
    const auto node = std::string(1, static_cast<char>('a' + pick(0, nodes - 1)));
    const double speed = 100.0 * std::pow(2.0, pick(0, 4)); // alike or quite unlike
    const auto memory = static_cast<std::uint64_t>(600 * pick(1, 16));
    auto made = device(node, static_cast<std::uint32_t>(i), memory, speed);
    made.prefill_us_per_token_layer = 10.0 * std::pow(2.0, pick(0, 3));
    made.head_us = 50.0 * pick(0, 3);
    w.devices.push_back(made);
  }
  for (int i = 0; i < nodes; ++i)
    for (int j = 0; j < nodes; ++j)
      if (i != j && pick(0, 9) > 0)
        w.links.push_back({std::string(1, static_cast<char>('a' + i)),
                           std::string(1, static_cast<char>('a' + j)), 50.0 * pick(1, 40),
                           0.1 * pick(1, 100)});
  return w;
}

void check_properties(const world& w, const serving_plan& plan) {
  const serving_costs costs(w.devices, w.links, w.model, w.goal);
  std::vector<int> seen(w.devices.size(), 0);
  for (const auto& replica : plan.replicas) {
    int next = 0;
    for (std::size_t j = 0; j < replica.stages.size(); ++j) {
      const auto& stage = replica.stages[j];
      REQUIRE(stage.first_layer == next);
      REQUIRE(stage.layers >= 1);
      REQUIRE(static_cast<int>(stage.devices.size()) <= w.model.kv_heads);
      next += stage.layers;
      const auto split = costs.split_by(stage.devices, stage.speeds);
      for (std::size_t rank = 0; rank < stage.devices.size(); ++rank) {
        ++seen[stage.devices[rank]];
        REQUIRE(w.devices[stage.devices[rank]].node == w.devices[stage.devices[0]].node);
        REQUIRE(
            costs.stage_bytes(split, rank, stage.layers, j == 0, j + 1 == replica.stages.size()) <=
            static_cast<double>(w.devices[stage.devices[rank]].memory_bytes) * (1 + 1e-9));
      }
    }
    REQUIRE(next == w.model.layers);
  }
  for (const auto& idle : plan.idle) {
    ++seen[idle.device];
    REQUIRE_FALSE(idle.why.empty());
  }
  for (const int count : seen)
    REQUIRE(count == 1);
}

world three_agents() {
  world w;
  w.model = {{2'000'000, 18'000'000, 28'000'000, 768, 1'000'000}, 30, 576, 3, 0.25, 16};
  w.goal.max_replicas = 1;
  w.devices = {device("a", 0, 90'000'000, 400), device("b", 0, 90'000'000, 200),
               device("c", 0, 90'000'000, 8000)};
  for (const auto* from : {"a", "b", "c"})
    for (const auto* to : {"a", "b", "c"})
      if (std::string(from) != to)
        w.links.push_back({from, to, 100, 10});
  return w;
}

std::string node_name(int number) {
  std::string name = "n";
  return name += std::to_string(number);
}

int layers_on(const serving_plan& plan, std::size_t device) {
  int layers = 0;
  for (const auto& replica : plan.replicas)
    for (const auto& stage : replica.stages)
      for (const auto member : stage.devices)
        if (member == device)
          layers += stage.layers;
  return layers;
}

} // namespace

TEST_CASE("one serving pipeline equals brute force", "[serving_planner]") {
  std::mt19937_64 random(7);
  const int cases = std::getenv("HEXGEN_LONG") != nullptr ? 6000 : 2000;
  int feasible = 0;
  for (int i = 0; i < cases; ++i) {
    const auto w = random_world(random);
    const auto plan = plan_serving(w.devices, w.links, w.model, w.goal);
    const brute_force all(w);
    INFO("case " << i);
    REQUIRE(plan.feasible == std::isfinite(all.best));
    check_properties(w, plan);
    if (!plan.feasible) {
      REQUIRE_FALSE(plan.missing.empty());
      continue;
    }
    ++feasible;
    REQUIRE(plan.replicas.size() == 1);
    REQUIRE(plan.replicas[0].request_s == Approx(all.best).epsilon(1e-9));
  }
  REQUIRE(feasible > cases / 3);
}

TEST_CASE("several serving replicas are disjoint, complete and worth more", "[serving_planner]") {
  std::mt19937_64 random(11);
  for (int i = 0; i < 500; ++i) {
    auto w = random_world(random);
    const auto one = plan_serving(w.devices, w.links, w.model, w.goal);
    w.goal.max_replicas = 0;
    const auto many = plan_serving(w.devices, w.links, w.model, w.goal);
    INFO("case " << i);
    REQUIRE(one.feasible == many.feasible);
    check_properties(w, many);
    if (!one.feasible)
      continue;
    double worth = 0;
    for (const auto& replica : many.replicas)
      worth += replica_worth(replica, one.replicas[0].request_s);
    REQUIRE(worth >= replica_worth(one.replicas[0], one.replicas[0].request_s) * (1 - 1e-9));
  }
}

TEST_CASE("a serving plan follows the measured speeds", "[serving_planner]") {
  auto w = three_agents();
  const auto before = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE(before.feasible);
  // b is the fastest, so it is filled first; c is the slowest and idle if two hold the model.
  REQUIRE(layers_on(before, 1) > layers_on(before, 0));
  REQUIRE(layers_on(before, 2) == 0);
  std::swap(w.devices[1].decode_us_per_layer, w.devices[2].decode_us_per_layer);
  std::swap(w.devices[1].prefill_us_per_token_layer, w.devices[2].prefill_us_per_token_layer);
  std::swap(w.devices[1].head_us, w.devices[2].head_us);
  const auto after = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE(layers_on(after, 2) == layers_on(before, 1));
  REQUIRE(layers_on(after, 1) == 0);
  const auto again = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE(again.why == after.why);
}

TEST_CASE("a device's own sizes decide what it holds", "[serving_planner]") {
  auto w = three_agents();
  w.devices.resize(1);
  w.goal.kv_tokens = 64; // 109 MB with them, the device has 90
  REQUIRE_FALSE(plan_serving(w.devices, w.links, w.model, w.goal).feasible);
  const manual_layout alone{{{1}}, {{30}}, {}};
  REQUIRE_FALSE(plan_manual(w.devices, w.links, w.model, w.goal, alone).feasible);
  auto& own = w.devices[0].sizes; // as a GPU with weights of a byte
  own = w.model;
  own.layer_bytes /= 2;
  REQUIRE(plan_serving(w.devices, w.links, w.model, w.goal).feasible);
  REQUIRE(plan_manual(w.devices, w.links, w.model, w.goal, alone).feasible);
  own.layer_bytes = w.model.layer_bytes * 3 / 2; // as a GPU that brings a file's 4 bits to 16
  w.devices[0].memory_bytes = 130'000'000;
  const auto plan = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE_FALSE(plan.feasible);
  REQUIRE(plan.missing.find("more are missing") != std::string::npos);
  own = {}; // as the model says
  REQUIRE(plan_serving(w.devices, w.links, w.model, w.goal).feasible);
}

TEST_CASE("three devices that each hold the model become three replicas", "[serving_planner]") {
  auto w = three_agents();
  for (auto& d : w.devices)
    d.memory_bytes = 1'000'000'000;
  w.goal.max_replicas = 0;
  const auto plan = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE(plan.replicas.size() == 3);
  REQUIRE(plan.replicas[0].stages[0].devices[0] == 1); // fastest first
  w.goal.max_replicas = 2;
  const auto two = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE(two.replicas.size() == 2);
  w.devices[1].draining = true;
  const auto drained = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE(drained.replicas.size() == 2);
  REQUIRE(drained.idle[0].why == "draining");
}

TEST_CASE("a pipeline for many requests has the fastest slowest stage", "[serving_planner]") {
  world w;
  w.model = {{2'000'000, 28'000'000, 28'000'000, 768, 1'000'000}, 30, 576, 3};
  w.goal.max_replicas = 1;
  for (const double speed : {0.6, 0.4, 0.25}) {
    auto d = device("n" + std::to_string(w.devices.size()), 0, 200'000'000, 130 / speed);
    d.prefill_us_per_token_layer = 47 / speed;
    d.head_us = 1000 / speed;
    w.devices.push_back(d);
  }
  for (const auto& from : w.devices)
    for (const auto& to : w.devices)
      if (from.node != to.node)
        w.links.push_back({from.node, to.node, 100, 10});
  const auto for_one = plan_serving(w.devices, w.links, w.model, w.goal);
  CHECK(for_one.replicas.at(0).stages.size() == 1); // it fits the fastest
  w.goal.concurrency = 12;
  const auto plan = plan_serving(w.devices, w.links, w.model, w.goal);
  const auto& replica = plan.replicas.at(0);
  REQUIRE(replica.stages.size() == 3);
  const serving_costs costs(w.devices, w.links, w.model, w.goal);
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::size_t> order = {0, 1, 2};
  do
    for (int a = 1; a <= 28; ++a)
      for (int b = 1; a + b <= 29; ++b) {
        serving_replica other;
        for (std::size_t j = 0; j < 3; ++j)
          other.stages.push_back({0, j == 0 ? a : j == 1 ? b : 30 - a - b, {order[j]}, {1.0}});
        costs.price(other);
        best = std::min(best, other.bottleneck_us);
      }
  while (std::next_permutation(order.begin(), order.end()));
  CHECK(replica.bottleneck_us <= best * (1 + 1e-9));
  CHECK(replica.stages.back().devices.front() == 0); // who computes the head
}

TEST_CASE("a serving plan says what is missing", "[serving_planner]") {
  auto w = three_agents();
  w.devices.resize(1);
  auto plan = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE_FALSE(plan.feasible);
  REQUIRE(plan.missing.find("more are missing") != std::string::npos);
  plan = plan_serving({}, {}, w.model, w.goal);
  REQUIRE(plan.missing == "no usable device has joined");
  w = three_agents();
  plan = plan_serving(w.devices, {}, w.model, w.goal);
  REQUIRE_FALSE(plan.feasible);
  REQUIRE(plan.missing.find("link") != std::string::npos);
  w.devices[0].decode_us_per_layer = std::nan("");
  w.devices[1].prefill_us_per_token_layer = -1;
  w.devices[2].memory_bytes = 0;
  plan = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE_FALSE(plan.feasible);
  REQUIRE(plan.missing.find("not measured yet") != std::string::npos);
}

TEST_CASE("a manual serving layout is checked and priced", "[serving_planner]") {
  auto w = three_agents();
  manual_layout layout{{{1, 1}}, {{18, 12}}, {}};
  auto plan = plan_manual(w.devices, w.links, w.model, w.goal, layout);
  REQUIRE(plan.feasible);
  REQUIRE(plan.replicas[0].stages[0].devices == std::vector<std::size_t>{0});
  REQUIRE(plan.replicas[0].stages[1].first_layer == 18);
  layout.placement = {{"c/0", "a/0"}};
  plan = plan_manual(w.devices, w.links, w.model, w.goal, layout);
  REQUIRE(plan.replicas[0].stages[0].devices == std::vector<std::size_t>{2});
  layout.placement = {{"c/0", "c/0"}};
  REQUIRE(plan_manual(w.devices, w.links, w.model, w.goal, layout).missing ==
          "device c/0 is placed twice");
  layout.placement = {{"c/0", "z/9"}};
  REQUIRE(plan_manual(w.devices, w.links, w.model, w.goal, layout).missing.find("z/9") !=
          std::string::npos);
  layout.placement.clear();
  layout.layers = {{18, 11}};
  REQUIRE(plan_manual(w.devices, w.links, w.model, w.goal, layout).missing ==
          "replica 0: the stages hold 29 layers, the model has 30");
  layout = {{{4}}, {{30}}, {}};
  REQUIRE(plan_manual(w.devices, w.links, w.model, w.goal, layout).missing.find("KV heads") !=
          std::string::npos);
  layout = {{{1}}, {{30}}, {}};
  REQUIRE(plan_manual(w.devices, w.links, w.model, w.goal, layout).missing.find("a/0 needs") !=
          std::string::npos);
  layout = {{{2, 1}}, {{18, 12}}, {}};
  // By hand a stage may span two nodes; the devices in order are a, b.
  plan = plan_manual(w.devices, w.links, w.model, w.goal, layout);
  REQUIRE(plan.feasible);
}

TEST_CASE("a large serving cluster is planned quickly by neighbourhoods", "[serving_planner]") {
  world w = three_agents();
  w.devices.clear();
  w.links.clear();
  w.goal.max_replicas = 0;
  std::mt19937_64 random(3);
  for (int n = 0; n < 16; ++n)
    for (std::uint32_t i = 0; i < 4; ++i)
      w.devices.push_back(
          device(node_name(n), i, 40'000'000, 100.0 + static_cast<double>(random() % 1000)));
  for (int a = 0; a < 16; ++a)
    for (int b = 0; b < 16; ++b)
      if (a != b)
        w.links.push_back({node_name(a), node_name(b), 200, 10});
  const auto plan = plan_serving(w.devices, w.links, w.model, w.goal);
  REQUIRE(plan.feasible);
  check_properties(w, plan);
  REQUIRE(plan.replicas.size() >= 10);
}
