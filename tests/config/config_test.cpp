#include "config/catalogue.hpp"
#include "config/cluster.hpp"
#include "config/error.hpp"
#include "config/model_shape.hpp"
#include "config/workload.hpp"
#include "tests/catch.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>

using namespace hexgen::config;

namespace {

const std::string root = HEXGEN_SOURCE_DIR;

device_catalogue catalogue() {
  return read_device_catalogue(root + "/config/devices.yaml");
}

std::string message_of(const std::string& cluster) {
  try {
    static_cast<void>(parse_cluster("pool.yaml", cluster, catalogue()));
  } catch (const config_error& error) {
    return error.what();
  }
  return "accepted";
}

const std::string links = "links:\n  intra_region: {latency_ms: 1, bandwidth_gbps: 5}\n";

} // namespace

TEST_CASE("every shipped file is read", "[config]") {
  const auto kinds = catalogue();
  int clusters = 0, models = 0, workloads = 0;
  for (const auto& file : std::filesystem::directory_iterator(root + "/config/clusters")) {
    const auto found = read_cluster(file.path().string(), kinds);
    CHECK(found.name == file.path().stem().string());
    CHECK(found.device_count() > 0);
    ++clusters;
  }
  for (const auto& file : std::filesystem::directory_iterator(root + "/config/models")) {
    CHECK(read_model_shape(file.path().string()).name == file.path().stem().string());
    ++models;
  }
  for (const auto& file : std::filesystem::directory_iterator(root + "/config/workloads")) {
    const auto found = read_workload(file.path().string());
    double share = 0;
    for (const auto& kind : found.kinds)
      share += kind.share;
    CHECK(share == Approx(1));
    ++workloads;
  }
  CHECK(clusters >= 8);
  CHECK(models >= 8);
  CHECK(workloads >= 1);
}

TEST_CASE("the paper's pools have its counts and prices", "[config]") {
  const auto read = [](const char* name) {
    return read_cluster(root + "/config/clusters/" + name + ".yaml", catalogue());
  };
  CHECK(read("paper-homogeneous").device_count() == 16);
  CHECK(read("paper-homogeneous").price_per_hour() == Approx(65.54));
  CHECK(read("paper-full-price").device_count() == 58);
  CHECK(read("paper-full-price").price_per_hour() == Approx(65.04));
  CHECK(read("paper-half-price").device_count() == 30);
  CHECK(read("paper-half-price").price_per_hour() == Approx(29.6));
  CHECK(read("helix-24-single").nodes.size() == 24);
  CHECK(read("helix-24-geo").nodes.size() == 24);
  CHECK(read("helix-42").nodes.size() == 42);
}

TEST_CASE("model sizes are the true ones", "[config]") {
  const auto shape = read_model_shape(root + "/config/models/llama-2-70b.yaml");
  CHECK(shape.layer_parameters() == Approx(855.6e6).epsilon(1e-3));
  CHECK(shape.layers * shape.layer_parameters() == Approx(68.5e9).epsilon(2e-3));
  CHECK(shape.kv_bytes_per_token_layer() == 2 * 1024 * 2);
}

TEST_CASE("a bad cluster file names file, line and key", "[config]") {
  const auto starts = [](const std::string& text, const std::string& with) {
    INFO(text);
    CHECK(text.rfind(with, 0) == 0);
  };
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: nope, count: 1}]}\n" + links),
         "pool.yaml:3: nodes[0].devices[0].kind: unknown device kind 'nope'");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4, count: -1}]}\n" + links),
         "pool.yaml:3: nodes[0].devices[0].count: -1 is not between 0 and");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4, count: 1.5}]}\n" + links),
         "pool.yaml:3: nodes[0].devices[0].count: must be a whole number");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4, count: many}]}\n" + links),
         "pool.yaml:3: nodes[0].devices[0].count: must be a number, not 'many'");
  starts(message_of("name: x\n" + links), "pool.yaml:1: nodes: is missing");
  starts(message_of("name: x\nnodes: []\n" + links), "pool.yaml:2: nodes: needs at least one");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4}]}\n"),
         "pool.yaml:1: links: is missing");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4}]}\nlinks:\n"
                    "  intra_region: {latency_ms: 1}\n"),
         "pool.yaml:5: links.intra_region.bandwidth_gbps: is missing");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4}]}\nlinks:\n"
                    "  intra_region: {latency_ms: .nan, bandwidth_gbps: 1}\n"),
         "pool.yaml:5: links.intra_region.latency_ms: must be a number");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4}]}\nlinks:\n"
                    "  intra_region: {latency_ms: -1, bandwidth_gbps: 1}\n"),
         "pool.yaml:5: links.intra_region.latency_ms: -1 is not between 0 and");
  starts(
      message_of("name: x\nnodes:\n  - {name: a, region: r, devices: [{kind: l4}]}\nlinks:\n"
                 "  inter_region:\n    - {between: [r, moon], latency_ms: 1, bandwidth_gbps: 1}\n"),
      "pool.yaml:6: links.inter_region[0].between: no node lies in region 'moon'");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4}], colour: red}\n" + links),
         "pool.yaml:3: nodes[0].colour: is not a key known here");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4}]}\n"
                    "  - {name: a, devices: [{kind: l4}]}\n" +
                    links),
         "pool.yaml:4: nodes[1].name: 'a' is given twice");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: l4, count: 65000}]}\n"
                    "  - {name: b, devices: [{kind: l4, count: 35000}]}\n" +
                    links),
         "pool.yaml:4: nodes[1].devices[0].count: the cluster has more than 65536 devices");
  starts(message_of("name: [x\n"), "pool.yaml:2: not valid YAML");
  starts(message_of("- a\n"), "pool.yaml:1: must be a mapping");
  starts(message_of(std::string(5u << 20, 'x')), "pool.yaml: is larger than 4 MiB");
  starts(message_of("name: x\nnodes:\n  - {name: a, devices: [{kind: mine}]}\n" + links +
                    "devices:\n  mine: {fp16_tflops: 10, memory_gib: 8}\n"),
         "pool.yaml:7: devices.mine.bandwidth_gbs: is missing");
}

TEST_CASE("a file of a hundred thousand devices is refused at once", "[config]") {
  std::string text = "name: x\nnodes:\n";
  for (int i = 0; i < 100'000; ++i)
    text += "- {name: n" + std::to_string(i) + ", devices: [{kind: l4}]}\n";
  const auto start = std::chrono::steady_clock::now();
  const auto said = message_of(text + links);
  // Two seconds alone on a slow core, and ten times that under a sanitizer.
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
  INFO(said);
  CHECK(said.rfind("pool.yaml:", 0) == 0);
  CHECK(said.find("65536 devices") != std::string::npos);
}

TEST_CASE("a cluster may override and define kinds", "[config]") {
  const auto found = parse_cluster(
      "pool.yaml",
      "name: x\nnodes:\n  - {name: a, devices: [{kind: l4, count: 2}, {kind: mine}]}\n" + links +
          "devices:\n  l4: {memory_gib: 48}\n  mine: {fp16_tflops: 10, memory_gib: 8, "
          "bandwidth_gbs: 100}\n",
      catalogue());
  CHECK(found.kinds.at("l4").memory_gib == 48);
  CHECK(found.kinds.at("l4").fp16_tflops == 121);
  CHECK(found.kinds.at("mine").bandwidth_gbs == 100);
  CHECK(found.device_count() == 3);
}

TEST_CASE("workloads and models refuse nonsense", "[config]") {
  CHECK_THROWS_WITH(parse_workload("w.yaml", "name: w\narrivals: {process: psychic}\n"),
                    "w.yaml:2: arrivals.process: must be poisson, gamma, mmpp or trace");
  CHECK_THROWS_WITH(parse_workload("w.yaml",
                                   "name: w\narrivals: {process: poisson}\nprompt_tokens: 0\n"
                                   "output_tokens: 5\n"),
                    "w.yaml:3: prompt_tokens: 0 is not between 1 and 1048576");
  CHECK_THROWS_WITH(parse_model_shape("m.yaml", "name: m\nlayers: 2\nhidden: 10\nheads: 3\n"
                                                "ffn: 4\nvocab: 5\n"),
                    "m.yaml:4: heads: must divide hidden");
  const auto azure = read_workload(root + "/config/workloads/azure-conversation.yaml");
  CHECK(azure.mean_prompt() == Approx(750).epsilon(0.05));
  CHECK(azure.mean_output() == Approx(240).epsilon(0.05));
}

TEST_CASE("traces are read beside the workload and checked", "[config]") {
  const auto folder = std::filesystem::temp_directory_path() / "hexgen-config-test";
  std::filesystem::create_directories(folder);
  const auto file = (folder / "w.yaml").string();
  std::ofstream(file) << "name: w\narrivals: {process: trace}\ntrace: t.csv\n";
  std::ofstream(folder / "t.csv") << "# seconds, prompt, output\n0,10,20\n1.5,10,20\n3,30,5\n";
  const auto found = read_workload(file);
  CHECK(found.trace.size() == 3);
  CHECK(found.kinds.size() == 2);
  CHECK(found.kinds[0].share == Approx(2.0 / 3));
  std::ofstream(folder / "t.csv") << "0,10,20\n-1,10,20\n";
  CHECK_THROWS_WITH(read_workload(file),
                    (folder / "t.csv").string() + ":2: a number is out of range");
  std::filesystem::remove_all(folder);
}

TEST_CASE("shipped names are found, unknown ones listed", "[config]") {
  CHECK(std::filesystem::exists(find_config("paper-full-price", "clusters")));
  try {
    static_cast<void>(find_config("nowhere", "clusters"));
    FAIL("found");
  } catch (const config_error& error) {
    CHECK(std::string(error.what()).find("paper-half-price") != std::string::npos);
  }
}
