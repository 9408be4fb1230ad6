#include "scheduler/paper_cost.hpp"
#include "scheduler/plan_service.hpp"
#include "scheduler/replan.hpp"
#include "scheduler/serving_replan.hpp"
#include "tests/catch.hpp"

#include <chrono>

using namespace hexgen;
using namespace hexgen::scheduler;

namespace {

const std::string root = HEXGEN_SOURCE_DIR;

config::cluster full_price() {
  return config::read_cluster(root + "/config/clusters/paper-full-price.yaml",
                              config::read_device_catalogue(root + "/config/devices.yaml"));
}

std::vector<pipeline> place(layout_book& book, const pool& pool, const grouping& from) {
  std::vector<int> taken(pool.machines().size(), 0);
  std::vector<pipeline> lines;
  for (const auto& one : choose_layouts(book, from))
    lines.push_back(place_layout(pool, from.genes[one.gene].group, one.slots, *one.layout, taken));
  return lines;
}

double rate_of(const cost_model& costs, const config::workload& workload,
               const std::vector<pipeline>& lines, const search_setting& setting) {
  const auto services = services_of(costs, lines, workload.kinds, occupancy::max_stage);
  const auto plan = pointers_to(services);
  return largest_rate(plan, make_stream(workload, 20'000, 5), {setting.policy, 1, setting.base},
                      setting.slo_scale, 0.99, capacity(plan, workload.kinds));
}

} // namespace

TEST_CASE("four GPUs leave: repaired at once, refined soon", "[replan]") {
  const auto model = config::read_model_shape(root + "/config/models/llama-2-70b.yaml");
  const auto workload = config::read_workload(root + "/config/workloads/arena-grid.yaml");
  const auto before = full_price();
  const pool old_pool(before);
  const paper_cost old_costs(old_pool, model, 128, 128);
  layout_book old_book(old_costs, workload.kinds, {});
  search_setting setting;
  setting.rate = 3;
  setting.base.assign(workload.kinds.size(), 0);
  for (std::size_t k = 0; k < workload.kinds.size(); ++k) // about the A100's
    setting.base[k] = static_cast<float>(0.021 * workload.kinds[k].output_tokens);
  setting.iterations = 1500;
  setting.requests = 1000;
  const auto running = search_groups(old_book, workload, setting);
  const auto old_lines = place(old_book, old_pool, running.best);
  const auto named = name_devices(old_pool, old_lines);

  auto after = before;
  after.nodes.front().devices.front().count -= 4;
  const pool new_pool(after);
  const paper_cost costs(new_pool, model, 128, 128);
  layout_book book(costs, workload.kinds, {});
  const auto start = std::chrono::steady_clock::now();
  const auto kept = carry_over(costs, named);
  CHECK(kept.broken >= 1);
  CHECK(kept.intact.size() + kept.broken == old_lines.size());
  const auto repaired = repair(book, workload, setting, kept.intact);
  WARN("repair took "
       << std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() << " s");
  CHECK(check_pipelines(costs, repaired, 128, 128).empty());
  CHECK(repaired.size() >= kept.intact.size());
  // Intact pipelines reload nothing.
  for (const auto& move : moves_to(costs, named, repaired))
    for (std::size_t r = 0; r < kept.intact.size(); ++r)
      for (const auto& stage : kept.intact[r])
        for (const int device : stage.devices)
          CHECK(move.device != device);

  auto again = setting;
  again.extra_seeds = {as_seed(new_pool, repaired)};
  const auto refined = place(book, new_pool, search_groups(book, workload, again).best);
  CHECK(check_pipelines(costs, refined, 128, 128).empty());
  again.extra_seeds.clear();
  again.seed = 5;
  const auto fresh = place(book, new_pool, search_groups(book, workload, again).best);
  const double full = rate_of(costs, workload, fresh, setting);
  CHECK(rate_of(costs, workload, refined, setting) >= 0.95 * full);
  CHECK(rate_of(costs, workload, repaired, setting) >= 0.7 * full);
}

TEST_CASE("only layers that a device does not hold are moved", "[replan]") {
  const auto source = full_price();
  const pool pool(source);
  const auto model = config::read_model_shape(root + "/config/models/llama-2-70b.yaml");
  const paper_cost costs(pool, model, 128, 64);
  const std::vector<pipeline> old{{{{0, 1, 2, 3}, 0, 40}, {{4, 5, 6, 7}, 40, 40}}};
  const auto named = name_devices(pool, old);
  CHECK(moves_to(costs, named, old).empty());
  const std::vector<pipeline> shifted{{{{0, 1, 2, 3}, 0, 44}, {{4, 5, 6, 7}, 44, 36}}};
  const auto moves = moves_to(costs, named, shifted);
  REQUIRE(moves.size() == 4);
  CHECK(moves[0].first_layer == 40);
  CHECK(moves[0].layers == 4);
  CHECK(moves[0].bytes == Approx(4 * model.layer_parameters() * 2 / 4));
  CHECK(reload_seconds(moves, 1e9) == Approx(moves[0].bytes / 1e9));
  // Another degree: all of it.
  const std::vector<pipeline> other{{{{0, 1, 2, 3, 4, 5, 6, 7}, 0, 80}}};
  double layers = 0;
  for (const auto& move : moves_to(costs, named, other))
    layers += move.layers;
  CHECK(layers == 8 * 80);
}

TEST_CASE("switching pays only when the gain outweighs the reload", "[replan]") {
  CHECK(switching_pays(10, 12, 300, 10));
  CHECK_FALSE(switching_pays(10, 10.1, 300, 10));
  CHECK_FALSE(switching_pays(10, 20, 10, 10));
  CHECK(switching_pays(0, 1, 300, 60));
}

TEST_CASE("a live plan is repaired around what still runs", "[replan]") {
  serving_model model{{2'000'000, 18'000'000, 28'000'000, 768, 1'000'000}, 30, 576, 3, 0.25, 16};
  std::vector<serving_device> devices;
  for (const auto* node : {"a", "b", "c", "d"})
    devices.push_back({node, 0, 90'000'000, 400, 50, 800, false});
  std::vector<serving_link> links;
  for (const auto& from : devices)
    for (const auto& to : devices)
      if (from.node != to.node)
        links.push_back({from.node, to.node, 100, 10});
  serving_replan_goal goal;
  const auto old = plan_serving(devices, links, model, goal.plan);
  REQUIRE(old.replicas.size() == 2);
  // Nothing changed: nothing moves.
  auto same = replan_serving(devices, old, devices, links, model, goal);
  CHECK(same.repair.moves.empty());
  CHECK(same.repair.kept == std::vector<int>{0, 1});
  CHECK_FALSE(same.refined.pays);
  // One device of the second replica leaves, another joins.
  const auto gone = old.replicas[1].stages[0].devices[0];
  auto now = devices;
  now[gone].node = "e";
  auto new_links = links;
  for (const auto* other : {"a", "b", "c", "d"}) {
    new_links.push_back({"e", other, 100, 10});
    new_links.push_back({other, "e", 100, 10});
  }
  const auto answer = replan_serving(devices, old, now, new_links, model, goal);
  REQUIRE(answer.repair.plan.replicas.size() == 2);
  CHECK(answer.repair.kept[0] == 0);
  CHECK(answer.repair.kept[1] == -1);
  CHECK(answer.repair.pays);
  CHECK(answer.repair.reload_s > 0);
  for (const auto& move : answer.repair.moves)
    for (const auto& stage : old.replicas[0].stages)
      for (const auto device : stage.devices)
        CHECK(move.device != device);
  // It leaves for good: the other replica goes on, the plan says what is idle.
  auto fewer = devices;
  fewer[gone].draining = true;
  const auto less = replan_serving(devices, old, fewer, links, model, goal);
  CHECK(less.repair.plan.replicas.size() == 1);
  CHECK(less.repair.moves.empty());
  CHECK(less.repair.plan.idle.size() == 2);
  // All gone.
  const auto none = replan_serving(devices, old, {}, {}, model, goal);
  CHECK_FALSE(none.repair.plan.feasible);
  CHECK_FALSE(none.repair.plan.missing.empty());
}
