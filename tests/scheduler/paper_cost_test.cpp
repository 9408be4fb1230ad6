#include "scheduler/paper_cost.hpp"
#include "tests/catch.hpp"

#include <cmath>

using namespace hexgen;
using scheduler::paper_cost;
using scheduler::pipeline;

namespace {

const std::string root = HEXGEN_SOURCE_DIR;

config::cluster cluster(const std::string& file) {
  return config::read_cluster(root + "/" + file,
                              config::read_device_catalogue(root + "/config/devices.yaml"));
}

config::model_shape llama() {
  return config::read_model_shape(root + "/config/models/llama-2-70b.yaml");
}

/// Stages as {degree, layers}, devices in order.
pipeline line(const std::vector<std::pair<int, int>>& stages, int device = 0) {
  pipeline made;
  int layer = 0;
  for (const auto& [degree, layers] : stages) {
    scheduler::stage next;
    for (int i = 0; i < degree; ++i)
      next.devices.push_back(device++);
    next.first_layer = layer;
    next.layers = layers;
    layer += layers;
    made.push_back(std::move(next));
  }
  return made;
}

struct expected {
  double compute_s, tensor_parallel_s, memory_gb;
};

void check(const std::string& file, const pipeline& stages, const std::vector<expected>& each,
           double hop_s, double total_s) {
  INFO(file);
  const auto source = cluster(file);
  const scheduler::pool pool(source);
  const auto model = llama();
  const paper_cost costs(pool, model, 128, 64);
  const auto prices = scheduler::price_stages(costs, stages, 128, 64);
  REQUIRE(prices.size() == each.size());
  double total = 0;
  for (std::size_t j = 0; j < each.size(); ++j) {
    CHECK(std::abs(prices[j].compute_s - each[j].compute_s) < 0.6e-6);
    CHECK(std::abs(prices[j].tensor_parallel_s - each[j].tensor_parallel_s) < 0.6e-6);
    CHECK(std::abs(prices[j].memory_bytes / 1e9 - each[j].memory_gb) < 0.6e-4);
    CHECK(std::abs(prices[j].pipeline_s - (j + 1 < each.size() ? hop_s : 0)) < 0.6e-6);
    total += prices[j].compute_s + prices[j].tensor_parallel_s + prices[j].pipeline_s;
  }
  CHECK(std::abs(total - total_s) < 0.6e-6);
  CHECK(std::abs(scheduler::time_pipeline(costs, stages, 128, 64).latency_s - total) < 1e-12);
}

} // namespace

TEST_CASE("the paper's cost model gives every fixture", "[paper_cost]") {
  const std::string golden = "tests/golden/clusters/";
  check(golden + "a100-tp8.yaml", line({{4, 80}}), {{1.345601, 0.314517, 32.3507}}, 0, 1.660117);
  check(golden + "a100-tp8.yaml", line({{8, 80}}), {{0.672800, 0.730936, 16.1816}}, 0, 1.403736);
  check(golden + "case-study-1ms.yaml", line({{4, 80}}), {{2.724308, 0.671186, 32.3507}}, 0,
        3.395494);
  check(golden + "rtx3090ti-8.yaml", line({{4, 40}, {4, 40}}),
        {{1.041939, 0.335593, 16.1816}, {1.041939, 0.335593, 16.1816}}, 0.000847, 2.755910);
  check(
      golden + "case-study-1ms.yaml", line({{4, 48}, {2, 20}, {2, 12}}),
      {{1.634585, 0.402712, 19.4154}, {1.370011, 0.059864, 16.1816}, {1.404716, 0.035919, 9.7140}},
      0.090166, 5.088138);
  check(
      golden + "case-study-1ms.yaml", line({{4, 44}, {2, 20}, {2, 16}}),
      {{1.498369, 0.369152, 17.7985}, {1.370011, 0.059864, 16.1816}, {1.872955, 0.047891, 12.9478}},
      0.090166, 5.398575);
  check(golden + "wan-4x4.yaml", line({{4, 40}, {4, 40}}),
        {{1.041939, 0.335593, 16.1816}, {1.370011, 0.335593, 16.1816}}, 6.550332, 9.633468);
}

TEST_CASE("the case study's ratios come out", "[paper_cost]") {
  const auto model = llama();
  const auto total = [&](const std::string& file, const std::vector<std::pair<int, int>>& stages) {
    const auto source = cluster(file);
    const scheduler::pool pool(source);
    const paper_cost costs(pool, model, 128, 64);
    return scheduler::time_pipeline(costs, line(stages), 128, 64).latency_s;
  };
  const std::string one = "config/clusters/paper-case-study.yaml";
  const std::string five = "config/clusters/paper-case-study-5ms.yaml";
  const std::vector<std::pair<int, int>> asymmetric{{4, 48}, {2, 20}, {2, 12}},
      tuned{{1, 13}, {1, 13}, {1, 13}, {1, 13}, {1, 8}, {1, 8}, {1, 6}, {1, 6}},
      halves{{4, 40}, {4, 40}};
  CHECK(total(one, tuned) / total(one, asymmetric) == Approx(2.41).margin(0.006));
  CHECK(total(five, halves) / total(five, asymmetric) == Approx(19.7).margin(0.06));
}

TEST_CASE("both memory variants give the fixtures", "[paper_cost]") {
  const auto source = cluster("tests/golden/clusters/a100-tp8.yaml");
  const scheduler::pool pool(source);
  const auto model = llama();
  const paper_cost sharded(pool, model, 128, 64), whole(pool, model, 128, 64, false);
  const auto gib = 1024.0 * 1024 * 1024;
  CHECK(std::abs(sharded.memory_bytes(8, 80, 128, 64) / gib - 15.07) < 0.006);
  const struct {
    int degree, layers;
    double gb, gib;
  } cases[] = {{4, 80, 32.7282, 30.4805},
               {8, 80, 16.6220, 15.4805},
               {4, 40, 16.3704, 15.2461},
               {2, 16, 12.9981, 12.1055},
               {2, 20, 16.2445, 15.1289}};
  for (const auto& c : cases) {
    CHECK(std::abs(whole.memory_bytes(c.degree, c.layers, 128, 64) / 1e9 - c.gb) < 0.6e-4);
    CHECK(std::abs(whole.memory_bytes(c.degree, c.layers, 128, 64) / gib - c.gib) < 0.6e-4);
  }
  // PP8 with ten layers on an A4000: feasible in the paper's model.
  CHECK(std::abs(sharded.memory_bytes(1, 10, 128, 64) / gib - 15.07) < 0.006);
}

TEST_CASE("broken pipelines are reported in numbers", "[paper_cost]") {
  const auto source = cluster("config/clusters/paper-case-study.yaml");
  const scheduler::pool pool(source);
  const auto model = llama();
  const paper_cost costs(pool, model, 128, 64);
  CHECK(scheduler::check_pipelines(costs, {line({{4, 48}, {2, 20}, {2, 12}})}, 128, 64).empty());
  auto found = scheduler::check_pipelines(costs, {line({{4, 40}, {2, 40}})}, 128, 64);
  REQUIRE(found.size() == 2);
  CHECK(found[0].constraint == "memory_bytes");
  CHECK(found[0].device == "m-1/0");
  CHECK(found[0].need > found[0].have);
  found = scheduler::check_pipelines(costs, {line({{4, 79}})}, 128, 64);
  REQUIRE(found.size() == 1);
  CHECK(found[0].constraint == "layers");
  CHECK_FALSE(
      scheduler::check_pipelines(costs, {line({{4, 80}}), line({{4, 80}})}, 128, 64).empty());
}
