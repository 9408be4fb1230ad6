// The plan of a running cluster, as its /cluster tells it, against brute force over what it
// measured.
#include "scheduler/serving_cost.hpp"
#include "tests/catch.hpp"
#include "tests/scheduler/serving_brute_force.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <utility>

using namespace hexgen::scheduler;
using hexgen::scheduler::testing::brute_force;
using hexgen::scheduler::testing::world;

namespace {

serving_sizes sizes_of(const nlohmann::json& in) {
  return {in.at("layer_bytes"), in.at("embedding_bytes"), in.at("head_bytes"),
          in.at("kv_bytes_per_token_layer"), in.at("activation_bytes")};
}

world world_of(const nlohmann::json& in) {
  world w;
  for (const auto& d : in.at("devices"))
    w.devices.push_back({d.at("node"), d.at("index"), d.at("memory_bytes"),
                         d.at("decode_us_per_layer"), d.at("prefill_us_per_token_layer"),
                         d.at("head_us"), d.at("draining"),
                         d.contains("sizes") ? sizes_of(d.at("sizes")) : serving_sizes{}});
  for (const auto& l : in.at("links"))
    w.links.push_back({l.at("from"), l.at("to"), l.at("latency_us"), l.at("bandwidth_gbps")});
  const auto& m = in.at("model");
  w.model = {sizes_of(m),      m.at("layers"),          m.at("hidden"),
             m.at("kv_heads"), m.at("attention_share"), m.at("ffn_leaves")};
  const auto& g = in.at("goal");
  w.goal = {g.at("kv_tokens"),    g.at("prompt_tokens"), g.at("output_tokens"),
            g.at("max_replicas"), g.at("concurrency"),   g.at("tensor_parallel_overhead_us")};
  return w;
}

} // namespace

// A recorded cluster (the three agents of tools/quickstart.sh), or the one that
// tests/integration/test_cluster.py has just started.
TEST_CASE("the plan of a running cluster equals brute force over its rates", "[running_plan]") {
  const char* given = std::getenv("HEXGEN_CLUSTER_JSON");
  const std::string path =
      given != nullptr ? given : HEXGEN_SOURCE_DIR "/tests/golden/clusters/quickstart.json";
  INFO(path);
  std::ifstream file(path);
  REQUIRE(file);
  const auto plan = nlohmann::json::parse(file).at("plan");
  const auto w = world_of(plan.at("searched"));

  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < w.devices.size(); ++i)
    index.emplace(w.devices[i].node + "/" + std::to_string(w.devices[i].index), i);
  REQUIRE(plan.at("replicas").size() == 1);
  serving_replica running;
  for (const auto& stage : plan.at("replicas")[0].at("stages")) {
    REQUIRE(stage.at("degree") == 1);
    running.stages.push_back({stage.at("first_layer"),
                              stage.at("layers"),
                              {index.at(stage.at("devices")[0].get<std::string>())},
                              {1.0}});
  }
  REQUIRE(running.stages.size() >= 2);
  serving_costs(w.devices, w.links, w.model, w.goal).price(running);
  REQUIRE(running.request_s == Approx(brute_force(w).best).epsilon(1e-9));
}
