#include "config/catalogue.hpp"
#include "config/error.hpp"
#include "tools/planning/solve.hpp"
#include "tools/planning/svg.hpp"
#include "tools/planning/verbs.hpp"
#include "tools/planning/what_if.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>

namespace hexgen::tools {

namespace {

struct plan_flags {
  input_flags inputs;
  solve_flags how;
  std::string svg;
  std::vector<std::string> what_if;
  double budget = 0;
  std::string running;
  double window_s = 300, load_gbs = 1;
};

void add_flags(CLI::App& app, plan_flags& flags) {
  add_input_flags(app, flags.inputs, true);
  app.add_option("--replicas", flags.how.replicas,
                 "at most so many; 1: the pipeline of least request latency, 0: any number")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app.add_option("--objective", flags.how.objective,
                 "attainment at the rate; scale: smallest SLO scale at the rate; rate: largest at "
                 "the scale; capacity; replicas: as many as fit; latency: one pipeline")
      ->check(CLI::IsMember({"attainment", "scale", "rate", "capacity", "replicas", "latency"}))
      ->capture_default_str();
  app.add_option("--iterations", flags.how.iterations, "search steps of each island")
      ->check(CLI::Range(0, 100'000'000))
      ->capture_default_str();
  app.add_option("--time-limit", flags.how.seconds, "seconds for the search")
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
  app.add_option("--islands", flags.how.islands, "independent searches, one thread each")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_flag("--across-regions", flags.how.across_regions,
               "let a replica span regions even where one region holds the model");
  app.add_flag("--explain", flags.how.explain, "say what bounds every stage");
  app.add_flag("--progress,!--no-progress", flags.how.progress, "tell of improvements on stderr");
  app.add_option("--svg", flags.svg, "write a picture of the layout to this file");
  app.add_option("--what-if", flags.what_if,
                 "add:KIND×N@NODE[@REGION], remove:NODE or remove:NODE/N; again for more");
  app.add_option("--budget", flags.budget,
                 "take the cluster as a list of offers and rent nodes for at most so many $/h")
      ->check(CLI::Range(0.0, 1e9));
  app.add_option("--running", flags.running,
                 "plan file of what runs: repair it for the cluster as it is now, then refine");
  app.add_option("--window", flags.window_s, "seconds that a plan is expected to last")
      ->check(CLI::Range(1.0, 1e9))
      ->capture_default_str();
  app.add_option("--load-gbs", flags.load_gbs, "10^9 byte/s that a device loads weights with")
      ->check(CLI::Range(1e-3, 1e3))
      ->capture_default_str();
}

void print_moves(const planning_inputs& inputs, const char* name,
                 const std::vector<scheduler::shard_move>& moves, double seconds) {
  double bytes = 0;
  for (const auto& move : moves)
    bytes += move.bytes;
  std::printf("%s: %zu loads, %.2f GB, %.1f s\n", name, moves.size(), bytes / 1e9, seconds);
  for (const auto& move : moves)
    std::printf("  %s loads layers %d-%d, %.3f GB\n", inputs.pool->id(move.device).c_str(),
                move.first_layer, move.first_layer + move.layers - 1, move.bytes / 1e9);
}

nlohmann::ordered_json moves_json(const planning_inputs& inputs,
                                  const std::vector<scheduler::shard_move>& moves) {
  auto all = nlohmann::ordered_json::array();
  for (const auto& move : moves)
    all.push_back({{"device", inputs.pool->id(move.device)},
                   {"first_layer", move.first_layer},
                   {"layers", move.layers},
                   {"bytes", move.bytes}});
  return all;
}

/// --running: the plan after the cluster became what --cluster says now.
int run_again(const plan_flags& flags, planning_inputs& inputs) {
  const auto found = solve_again(flags.inputs, flags.how, inputs, read_running_plan(flags.running),
                                 flags.window_s, flags.load_gbs * 1e9);
  if (const auto* failure = std::get_if<failed_plan>(&found)) {
    std::puts(failure_json(flags.inputs, inputs, *failure).c_str());
    return 1;
  }
  const auto& next = std::get<next_plan>(found);
  if (flags.inputs.json) {
    using nlohmann::ordered_json;
    auto refined = ordered_json::parse(plan_json(flags.inputs, inputs, next.refined));
    ordered_json all{{"intact", next.intact}, {"broken", next.broken}};
    if (!next.repaired.lines.empty())
      all["repaired"] = ordered_json::parse(plan_json(flags.inputs, inputs, next.repaired));
    all["repair_seconds"] = next.repair_seconds;
    all["repair_reload_s"] = next.repair_reload_s;
    all["repair_moves"] = moves_json(inputs, next.repair_moves);
    all["refined"] = std::move(refined);
    all["refine_reload_s"] = next.refine_reload_s;
    all["refine_moves"] = moves_json(inputs, next.refine_moves);
    all["refining_pays"] = next.refining_pays;
    std::puts(all.dump(2).c_str());
    return 0;
  }
  std::printf("%zu replicas intact, %zu broken; repaired in %.3f s\n", next.intact, next.broken,
              next.repair_seconds);
  print_moves(inputs, "repair", next.repair_moves, next.repair_reload_s);
  std::printf("repaired: attainment %.4f, throughput %.4g requests/s\n\n", next.repaired.attainment,
              next.repaired.throughput_rps);
  std::fputs(plan_table(flags.inputs, inputs, next.refined).c_str(), stdout);
  print_moves(inputs, "refinement", next.refine_moves, next.refine_reload_s);
  std::printf("switching to it %s within %.0f s\n", next.refining_pays ? "pays" : "does not pay",
              flags.window_s);
  return 0;
}

/// Prints the plan; with --what-if also what it was before.
int run(plan_flags& flags) {
  watch_interrupt();
  auto cluster =
      config::read_cluster(config::find_config(flags.inputs.cluster, "clusters"), load_catalogue());
  double before_rate = -1, before_attainment = 0;
  if (!flags.what_if.empty()) {
    const auto inputs = load_inputs(flags.inputs, cluster);
    const auto before = solve(flags.inputs, flags.how, *inputs);
    if (const auto* plan = std::get_if<planned>(&before)) {
      before_rate = plan->throughput_rps;
      before_attainment = plan->attainment;
    }
    for (const auto& change : flags.what_if)
      apply_what_if(cluster, change);
  }
  if (flags.budget > 0)
    cluster = rent_within(flags.inputs, cluster, flags.budget);
  const auto inputs = load_inputs(flags.inputs, std::move(cluster));
  if (!flags.running.empty())
    return run_again(flags, *inputs);
  const auto found = solve(flags.inputs, flags.how, *inputs);
  if (const auto* failure = std::get_if<failed_plan>(&found)) {
    if (flags.inputs.json) {
      std::puts(failure_json(flags.inputs, *inputs, *failure).c_str());
    } else {
      std::fprintf(stderr, "no feasible plan: %s\n", failure->help.c_str());
      for (const auto& one : failure->violations)
        std::fprintf(stderr, "  %s%s%s: need %.6g, have %.6g\n", one.device.c_str(),
                     one.device.empty() ? "" : " ", one.constraint.c_str(), one.need, one.have);
    }
    return 1;
  }
  const auto& plan = std::get<planned>(found);
  if (!flags.svg.empty())
    write_text(flags.svg, layout_svg(*inputs, plan));
  if (flags.inputs.json) {
    std::puts(plan_json(flags.inputs, *inputs, plan).c_str());
    return 0;
  }
  std::fputs(plan_table(flags.inputs, *inputs, plan).c_str(), stdout);
  if (before_rate >= 0)
    std::printf("what if: throughput %.4g -> %.4g requests/s, attainment %.4f -> %.4f\n",
                before_rate, plan.throughput_rps, before_attainment, plan.attainment);
  return 0;
}

} // namespace

int plan_main(int argc, char** argv) {
  CLI::App app{"Place a model on a cluster and say how well it will serve", "hexgen plan"};
  plan_flags flags;
  add_flags(app, flags);
  if (const int code = parse_arguments(app, argc, argv); code != 0)
    return code - 1;
  try {
    return run(flags);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hexgen plan: %s\n", error.what());
    return 1;
  }
}

planning_function planning_verb(std::string_view name) {
  if (name == "plan")
    return plan_main;
  if (name == "cost")
    return cost_main;
  if (name == "simulate")
    return simulate_main;
  if (name == "compare")
    return compare_main;
  return nullptr;
}

} // namespace hexgen::tools
