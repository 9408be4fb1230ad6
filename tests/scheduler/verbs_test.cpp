#include "tests/sanitized.hpp"
#include "tests/scheduler/run_planning.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>

using hexgen::test::root;
using hexgen::test::write_scratch;

namespace {

const auto folder = hexgen::test::scratch();

hexgen::test::outcome run(const std::string& arguments, bool errors = false) {
  return hexgen::test::run_planning(arguments, errors);
}

std::string write(const std::string& name, const std::string& text) {
  return write_scratch(name, text);
}

std::string cluster(const std::string& name) {
  return root + "/config/clusters/" + name + ".yaml";
}

const std::string model = " --model " + root + "/config/models/llama-2-70b.yaml";

} // namespace

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

TEST_CASE("a missing link is named by file, line and key", "[verbs]") {
  // Each region holds half of the model.
  const std::string nodes = "name: apart\nnodes:\n"
                            "  - {name: a, region: r, devices: [{kind: a100-40g, count: 2}]}\n"
                            "  - {name: b, region: s, devices: [{kind: a100-40g, count: 2}]}\n";
  const auto help = [&](const std::string& name, const std::string& links) {
    const auto file = write(name, nodes + links);
    const auto made = run("plan --cluster " + file + model + " --mode paper --json");
    CHECK(made.code == 1);
    const auto json = nlohmann::json::parse(made.out);
    const auto& violation = json["violations"].back();
    CHECK(violation["constraint"] == "layers that linked devices hold together");
    CHECK(violation["have"].get<double>() < violation["need"].get<double>());
    return json["help"].get<std::string>();
  };
  CHECK(help("apart.yaml", "links:\n  intra_region: {latency_ms: 1, bandwidth_gbps: 1}\n")
            .find("apart.yaml:6: links.inter_region: no link between [r, s] (") !=
        std::string::npos);
  // The same two nodes in one region without links.
  const auto same = write("alone.yaml", "name: alone\nnodes:\n"
                                        "  - {name: a, devices: [{kind: a100-40g, count: 2}]}\n"
                                        "  - {name: b, devices: [{kind: a100-40g, count: 2}]}\n"
                                        "links:\n  comment: none\n");
  const auto made = run("plan --cluster " + same + model + " --mode paper --json");
  CHECK(made.code == 1);
  CHECK(nlohmann::json::parse(made.out)["help"].get<std::string>().find(
            "alone.yaml:6: links.intra_region: is absent") != std::string::npos);
  // Linked, they serve.
  const auto linked =
      write("linked.yaml", nodes + "links:\n  inter_region: [{between: [r, s], latency_ms: 20, "
                                   "bandwidth_gbps: 1}]\n");
  CHECK(run("plan --cluster " + linked + model + " --mode paper --iterations 50").code == 0);
}

TEST_CASE("no feasible plan names what fails, by how much, and what would do", "[verbs]") {
  // Two L4 hold 22 GiB each of Llama-2-70B's 120; a third, fourth, ... sixth make it feasible.
  const auto pool = [](int count) {
    return write("l4.yaml", "name: l4\nnodes:\n  - {name: a, devices: [{kind: l4, count: " +
                                std::to_string(count) + "}]}\nlinks: {comment: none}\n");
  };
  const auto plan = [&](int count) {
    return run("plan --cluster " + pool(count) + model + " --mode paper --iterations 20 --json");
  };
  const auto failed = plan(2);
  REQUIRE(failed.code == 1);
  const auto json = nlohmann::json::parse(failed.out);
  const auto& violation = json["violations"].back();
  CHECK(violation["constraint"] == "layers that all devices hold together");
  CHECK(violation["need"] == 80);
  const double have = violation["have"].get<double>();
  // The help's number of layers is the difference, and as many more devices do serve.
  CHECK(json["help"].get<std::string>().rfind(std::to_string(80 - static_cast<int>(have)), 0) == 0);
  const int enough = static_cast<int>(std::ceil(80 / (have / 2)));
  CHECK(plan(enough - 1).code == 1);
  CHECK(plan(enough).code == 0);
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

TEST_CASE("calibrated plans are judged as the engine batches", "[verbs]") {
  const auto pool = cluster(hexgen::test::sanitized ? "a100-reference" : "paper-half-price");
  const auto common = " --cluster " + pool + model + " --workload " + root +
                      "/config/workloads/arena-grid.yaml --rate 12 --slo-scale 5";
  const std::string search = std::string(" --objective rate --islands 1") +
                             (hexgen::test::sanitized ? " --time-limit 3" : "");
  const auto made = run("plan" + common + search + " --iterations 60 --json");
  REQUIRE(made.code == 0);
  const auto json = nlohmann::json::parse(made.out);
  CHECK(json["mode"] == "calibrated");
  // More than any plan of paper mode serves on this pool (2.9 requests/s).
  CHECK(json["slo_attainment"].get<double>() > 0.99);
  CHECK(json["throughput_rps"].get<double>() > 12);
  CHECK(json["throughput_rps"].get<double>() <= json["upper_bound_rps"].get<double>());
  CHECK(json["concurrency"].get<int>() >= 4);
  // The plan's own size of batch is read back, and what simulate says of it agrees.
  const auto plan = write("batched.json", made.out);
  const auto simulated = run("simulate" + common + " --plan " + plan + " --json");
  REQUIRE(simulated.code == 0);
  const auto again = nlohmann::json::parse(simulated.out);
  CHECK(again["throughput_rps"] == Approx(json["throughput_rps"].get<double>()).epsilon(1e-4));
  CHECK(again["rate_99"].get<double>() > 12);
  CHECK(again["rate_99"].get<double>() <= again["throughput_rps"].get<double>());
  // Small steps only, as for one user after the other: a plan for those serves no more.
  const auto narrow = run("plan" + common + search + " --iterations 10 --concurrency 1 --json");
  REQUIRE(narrow.code == 0);
  CHECK(nlohmann::json::parse(narrow.out)["concurrency"] == 1);
}

TEST_CASE("interrupted, plan prints the best so far", "[verbs]") {
  // A shell starts it, waits until a first plan is there, and presses Ctrl-C for us.
  const auto out = (folder / "stopped.json").string(), told = (folder / "progress").string();
  const auto command =
      std::string("set -m; ") + HEXGEN_PLANNING + " plan --cluster " + cluster("paper-full-price") +
      model + " --workload " + root +
      "/config/workloads/arena-grid.yaml --mode paper --rate 3 --slo-scale 3 --iterations "
      "100000000 --time-limit 50 --progress --json > " +
      out + " 2> " + told + " & pid=$!; for i in $(seq 400); do [ -s " + told +
      " ] && break; sleep 0.05; done; kill -INT $pid; wait $pid";
  const int status = std::system(("bash -c '" + command + "'").c_str());
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  std::ifstream file(out);
  const auto json = nlohmann::json::parse(file);
  CHECK_FALSE(json["replicas"].empty());
  CHECK(json["search"]["ended"] == "time");
  CHECK(json["search"]["seconds"].get<double>() < 45);
}
