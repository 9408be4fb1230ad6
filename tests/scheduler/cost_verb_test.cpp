#include "tests/scheduler/run_planning.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <vector>

using namespace hexgen::test;

namespace {

struct laid {
  const char* node;
  int first, degree, layers;
};

struct expected {
  double compute_s, tensor_parallel_s, memory_gb;
};

constexpr double gib = 1024.0 * 1024 * 1024;

/// `hexgen cost` of one pipeline, 128 tokens in and 64 out.
nlohmann::json cost(const std::string& cluster, const std::vector<laid>& stages,
                    const std::string& more, int code = 0) {
  auto all = nlohmann::json::array();
  int layer = 0;
  for (const auto& one : stages) {
    auto devices = nlohmann::json::array();
    for (int i = 0; i < one.degree; ++i)
      devices.push_back(std::string(one.node) + "/" + std::to_string(one.first + i));
    all.push_back({{"devices", devices}, {"first_layer", layer}, {"layers", one.layers}});
    layer += one.layers;
  }
  const nlohmann::json plan{{"replicas", {{{"stages", all}}}}};
  const auto made = run_planning(
      "cost --cluster " + root + "/" + cluster + " --plan " +
      write_scratch("fixture.json", plan.dump()) + " --model " + root +
      "/config/models/llama-2-70b.yaml --prompt-tokens 128 --output-tokens 64 --json " + more);
  INFO(made.out);
  REQUIRE(made.code == code);
  return nlohmann::json::parse(made.out);
}

void check(const std::string& name, const std::vector<laid>& stages,
           const std::vector<expected>& each, double hop_s, double total_s) {
  INFO(name);
  const auto made = cost("tests/golden/clusters/" + name + ".yaml", stages, "--mode paper");
  const auto& replica = made["replicas"][0];
  REQUIRE(replica["stage_costs"].size() == each.size());
  for (std::size_t j = 0; j < each.size(); ++j) {
    const auto& stage = replica["stage_costs"][j];
    CHECK(std::abs(stage["compute_s"].get<double>() - each[j].compute_s) < 0.6e-6);
    CHECK(std::abs(stage["tensor_parallel_s"].get<double>() - each[j].tensor_parallel_s) < 0.6e-6);
    CHECK(std::abs(stage["memory_gb"].get<double>() - each[j].memory_gb) < 0.6e-4);
    CHECK(std::abs(stage["pipeline_s"].get<double>() - (j + 1 < each.size() ? hop_s : 0)) < 0.6e-6);
  }
  CHECK(std::abs(replica["request_latency_s"].get<double>() - total_s) < 0.6e-6);
}

double memory_gb(const nlohmann::json& made, int stage) {
  return made["replicas"][0]["stage_costs"][static_cast<std::size_t>(stage)]["memory_gb"]
      .get<double>();
}

} // namespace

TEST_CASE("hexgen cost prints every fixture", "[verbs]") {
  check("a100-tp8", {{"a", 0, 4, 80}}, {{1.345601, 0.314517, 32.3507}}, 0, 1.660117);
  check("a100-tp8", {{"a", 0, 8, 80}}, {{0.672800, 0.730936, 16.1816}}, 0, 1.403736);
  check("case-study-1ms", {{"m-0", 0, 4, 80}}, {{2.724308, 0.671186, 32.3507}}, 0, 3.395494);
  check("rtx3090ti-8", {{"a", 0, 4, 40}, {"a", 4, 4, 40}},
        {{1.041939, 0.335593, 16.1816}, {1.041939, 0.335593, 16.1816}}, 0.000847, 2.755910);
  check(
      "case-study-1ms", {{"m-0", 0, 4, 48}, {"m-1", 0, 2, 20}, {"m-2", 0, 2, 12}},
      {{1.634585, 0.402712, 19.4154}, {1.370011, 0.059864, 16.1816}, {1.404716, 0.035919, 9.7140}},
      0.090166, 5.088138);
  check(
      "case-study-1ms", {{"m-0", 0, 4, 44}, {"m-1", 0, 2, 20}, {"m-2", 0, 2, 16}},
      {{1.498369, 0.369152, 17.7985}, {1.370011, 0.059864, 16.1816}, {1.872955, 0.047891, 12.9478}},
      0.090166, 5.398575);
  check("wan-4x4", {{"a", 0, 4, 40}, {"b", 0, 4, 40}},
        {{1.041939, 0.335593, 16.1816}, {1.370011, 0.335593, 16.1816}}, 6.550332, 9.633468);
}

TEST_CASE("hexgen cost prints the other memory variant", "[verbs]") {
  const std::string a100 = "tests/golden/clusters/a100-tp8.yaml";
  const std::string whole = "--mode paper --kv-sharded false";
  CHECK(std::abs(memory_gb(cost(a100, {{"a", 0, 4, 80}}, whole), 0) - 32.7282) < 0.6e-4);
  CHECK(std::abs(memory_gb(cost(a100, {{"a", 0, 8, 80}}, whole), 0) - 16.6220) < 0.6e-4);
  const auto halves = cost(a100, {{"a", 0, 4, 40}, {"a", 4, 4, 40}}, whole);
  CHECK(std::abs(memory_gb(halves, 0) - 16.3704) < 0.6e-4);
  const auto pairs =
      cost(a100, {{"a", 0, 2, 16}, {"a", 2, 2, 20}, {"a", 4, 2, 22}, {"a", 6, 2, 22}}, whole);
  CHECK(std::abs(memory_gb(pairs, 0) - 12.9981) < 0.6e-4);
  CHECK(std::abs(memory_gb(pairs, 1) - 16.2445) < 0.6e-4);
  CHECK(std::abs(memory_gb(pairs, 1) * 1e9 / gib - 15.1289) < 0.6e-4);
  // A share of degree 8 in GiB, KV divided and not: it would fit 16 GiB.
  CHECK(std::abs(memory_gb(cost(a100, {{"a", 0, 8, 80}}, "--mode paper"), 0) * 1e9 / gib - 15.07) <
        0.006);
  CHECK(std::abs(memory_gb(cost(a100, {{"a", 0, 8, 80}}, whole), 0) * 1e9 / gib - 15.4805) <
        0.6e-4);
}

TEST_CASE("ten layers on an A4000 fit on paper and not in truth", "[verbs]") {
  const std::string study = "tests/golden/clusters/case-study-1ms.yaml";
  std::vector<laid> each;
  for (int i = 0; i < 4; ++i)
    each.push_back({"m-0", i, 1, 10});
  for (const char* node : {"m-1", "m-2"})
    for (int i = 0; i < 2; ++i)
      each.push_back({node, i, 1, 10});
  CHECK(std::abs(memory_gb(cost(study, each, "--mode paper"), 7) * 1e9 / gib - 15.07) < 0.006);
  const auto refused = cost(study, each, "--mode calibrated", 1);
  CHECK(refused["feasible"] == false);
  CHECK(refused["violations"].back()["device"] == "m-2/1");
  CHECK(refused["violations"].back()["constraint"] == "memory_bytes");
}
