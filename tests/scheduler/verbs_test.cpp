#include "tests/catch.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

const std::string root = HEXGEN_SOURCE_DIR;
const auto folder = std::filesystem::temp_directory_path() / "hexgen-verbs-test";

struct outcome {
  int code = 0;
  std::string out; // stderr too when asked for
};

outcome run(const std::string& arguments, bool errors = false) {
  const auto command =
      std::string(HEXGEN_PLANNING) + " " + arguments + (errors ? " 2>&1" : " 2>/dev/null");
  outcome made;
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> piece{};
  for (std::size_t n = 0; (n = std::fread(piece.data(), 1, piece.size(), pipe)) > 0;)
    made.out.append(piece.data(), n);
  const int status = pclose(pipe);
  made.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return made;
}

std::string write(const std::string& name, const std::string& text) {
  std::filesystem::create_directories(folder);
  const auto path = (folder / name).string();
  std::ofstream(path) << text;
  return path;
}

std::string cluster(const std::string& name) {
  return root + "/config/clusters/" + name + ".yaml";
}

const std::string model = " --model " + root + "/config/models/llama-2-70b.yaml";

} // namespace

TEST_CASE("cost prints the fixtures", "[verbs]") {
  const auto plan = write("case.json", R"({"model": "llama-2-70b", "mode": "paper", "replicas": [
    {"stages": [{"devices": ["m-0/0","m-0/1","m-0/2","m-0/3"], "first_layer": 0, "layers": 48},
                {"devices": ["m-1/0","m-1/1"], "first_layer": 48, "layers": 20},
                {"devices": ["m-2/0","m-2/1"], "first_layer": 68, "layers": 12}]}]})");
  const auto made =
      run("cost --cluster " + root + "/tests/golden/clusters/case-study-1ms.yaml" + " --plan " +
          plan + model + " --mode paper --prompt-tokens 128 --output-tokens 64 --json");
  REQUIRE(made.code == 0);
  const auto json = nlohmann::json::parse(made.out);
  const auto& replica = json["replicas"][0];
  CHECK(replica["request_latency_s"].get<double>() == Approx(5.088138).margin(0.6e-6));
  CHECK(replica["stage_costs"][0]["compute_s"].get<double>() == Approx(1.634585).margin(0.6e-6));
  CHECK(replica["stage_costs"][1]["tensor_parallel_s"].get<double>() ==
        Approx(0.059864).margin(0.6e-6));
  CHECK(replica["stage_costs"][1]["pipeline_s"].get<double>() == Approx(0.090166).margin(0.6e-6));
  CHECK(replica["stage_costs"][2]["memory_gb"].get<double>() == Approx(9.7140).margin(0.6e-4));
}

TEST_CASE("cost refuses broken plans in numbers", "[verbs]") {
  const auto plan = write("broken.json", R"({"replicas": [
    {"stages": [{"devices": ["m-1/0","m-1/1"], "first_layer": 0, "layers": 80}]}]})");
  const auto made = run("cost --cluster " + cluster("paper-case-study") + " --plan " + plan +
                        model + " --mode paper --json");
  CHECK(made.code == 1);
  const auto json = nlohmann::json::parse(made.out);
  CHECK(json["feasible"] == false);
  REQUIRE(json["violations"].size() == 2);
  CHECK(json["violations"][0]["constraint"] == "memory_bytes");
  CHECK(json["violations"][0]["need"].get<double>() > json["violations"][0]["have"].get<double>());
  const auto unknown = write("unknown.json", R"({"replicas": [{"stages": [
    {"devices": ["m-9/0"], "layers": 80}]}]})");
  const auto said = run("cost --cluster " + cluster("paper-case-study") + " --plan " + unknown +
                            model + " --mode paper",
                        true);
  CHECK(said.code == 1);
  CHECK(said.out.find("unknown.json: replicas[0].stages[0].devices: the cluster has no device "
                      "'m-9/0'") != std::string::npos);
}

TEST_CASE("plan, then simulate what was planned", "[verbs]") {
  const auto common = " --cluster " + cluster("paper-half-price") + model + " --workload " + root +
                      "/config/workloads/arena-grid.yaml --mode paper --rate 1.2 --slo-scale 5";
  const auto made =
      run("plan" + common + " --iterations 400 --json --svg " + (folder / "layout.svg").string());
  REQUIRE(made.code == 0);
  const auto json = nlohmann::json::parse(made.out);
  CHECK(json["slo_attainment"].get<double>() >= 0.99);
  CHECK(json["throughput_rps"].get<double>() <= json["upper_bound_rps"].get<double>());
  CHECK(json["search"]["seed"] == 1);
  int devices = static_cast<int>(json["idle"].size());
  for (const auto& replica : json["replicas"]) {
    int next = 0;
    for (const auto& stage : replica["stages"]) {
      CHECK(stage["first_layer"] == next);
      next += stage["layers"].get<int>();
      devices += static_cast<int>(stage["devices"].size());
    }
    CHECK(next == 80);
  }
  CHECK(devices == 30);
  CHECK(std::filesystem::file_size(folder / "layout.svg") > 1000);
  // Seconds differ; all else is the same for the same seed.
  auto again = nlohmann::json::parse(run("plan" + common + " --iterations 400 --json").out);
  auto first = json;
  again["search"].erase("seconds");
  first["search"].erase("seconds");
  CHECK(again == first);

  const auto plan = write("plan.json", made.out);
  const auto simulated =
      run("simulate" + common + " --plan " + plan + " --sweep rate --points 5 --json");
  REQUIRE(simulated.code == 0);
  const auto result = nlohmann::json::parse(simulated.out);
  CHECK(result["slo_attainment"].get<double>() >= 0.985);
  CHECK(result["rate_99"].get<double>() >= 1.1);
  CHECK(result["scale_99"].get<double>() <= 5.3);
  CHECK(result["sweep"]["points"].size() == 5);
  CHECK(run("simulate" + common + " --plan " + plan + " --json").out ==
        run("simulate" + common + " --plan " + plan + " --json").out);
}

TEST_CASE("no feasible plan says what is missing", "[verbs]") {
  const auto pool = write("small.yaml", "name: small\nnodes:\n  - {name: a, devices: [{kind: l4, "
                                        "count: 2}]}\nlinks:\n  intra_region: {latency_ms: 1, "
                                        "bandwidth_gbps: 1}\n");
  for (const auto* mode : {"paper", "calibrated"}) {
    const auto made = run("plan --cluster " + pool + model + " --mode " + mode + " --json");
    CHECK(made.code == 1);
    const auto json = nlohmann::json::parse(made.out);
    CHECK(json["feasible"] == false);
    CHECK_FALSE(json["violations"].empty());
    CHECK(json["help"].get<std::string>().find("are missing") != std::string::npos);
  }
}

TEST_CASE("usage mistakes end with 2, bad files with 1", "[verbs]") {
  CHECK(run("plan --frobnicate").code == 2);
  CHECK(run("plan").code == 2);
  CHECK(run("plan --cluster paper-half-price --model llama-2-70b --rate -1").code == 2);
  CHECK(run("plan --help").code == 0);
  const auto bad = write("bad.yaml", "name: x\nnodes:\n  - {name: a, devices: [{kind: zz}]}\n"
                                     "links: {}\n");
  const auto said = run("plan --cluster " + bad + model, true);
  CHECK(said.code == 1);
  CHECK(said.out.find("bad.yaml:3: nodes[0].devices[0].kind") != std::string::npos);
}

TEST_CASE("what-if and budget change the pool", "[verbs]") {
  const auto common = " --cluster " + cluster("paper-half-price") + model +
                      " --mode paper --rate 1 --iterations 50 --objective capacity --json";
  const auto rate = [&](const std::string& more) {
    const auto made = run("plan" + common + more);
    INFO(made.out);
    REQUIRE(made.code == 0);
    return nlohmann::json::parse(made.out);
  };
  const double now = rate("")["throughput_rps"].get<double>();
  CHECK(rate(" --what-if add:a6000x8@new-0@nevada")["throughput_rps"].get<double>() > now);
  CHECK(rate(" --what-if remove:ice-0")["throughput_rps"].get<double>() < now);
  CHECK(rate(" --what-if remove:ice-0/4")["throughput_rps"].get<double>() < now);
  const auto cheap = rate(" --budget 17");
  CHECK(cheap["price_per_hour"].get<double>() <= 17);
  CHECK(run("plan" + common + " --what-if remove:nobody").code == 1);
}

TEST_CASE("calibrated mode batches", "[verbs]") {
  const auto made =
      run("plan --cluster " + cluster("paper-half-price") + model + " --workload " + root +
          "/config/workloads/arena-grid.yaml --rate 6 --iterations 100 --json");
  REQUIRE(made.code == 0);
  const auto json = nlohmann::json::parse(made.out);
  // More than any plan of paper mode serves on this pool (2.9 requests/s).
  CHECK(json["slo_attainment"].get<double>() > 0.9);
  CHECK(json["mode"] == "calibrated");
}
