#include "tools/planning/helix_compare.hpp"

#include "scheduler/flow_placement.hpp"
#include "tools/planning/batched_search.hpp"
#include "tools/planning/in_parallel.hpp"

#include <algorithm>
#include <map>

namespace hexgen::tools {

namespace {

constexpr int flow_steps = 1500, threads = 2, most_attempts = 6;

/// The clusters that the nodes of each type form alone.
std::vector<config::cluster> by_type(const config::cluster& whole) {
  std::map<std::vector<std::pair<std::string, int>>, config::cluster> found;
  for (const auto& node : whole.nodes) {
    std::vector<std::pair<std::string, int>> type;
    for (const auto& group : node.devices)
      type.emplace_back(group.kind, group.count);
    auto [at, made] = found.try_emplace(std::move(type), whole);
    if (made)
      at->second.nodes.clear();
    at->second.nodes.push_back(node);
  }
  std::vector<config::cluster> all;
  for (auto& [type, cluster] : found)
    all.push_back(std::move(cluster));
  return all;
}

/// The lines of the best plan that a search for capacity finds; `known` are plans to begin with.
std::vector<scheduler::pipeline> search_capacity(const input_flags& flags,
                                                 const planning_inputs& inputs, double seconds,
                                                 bool progress,
                                                 std::vector<scheduler::grouping> known) {
  solve_flags how;
  how.seconds = seconds;
  how.progress = progress;
  scheduler::search_setting setting;
  setting.goal = scheduler::search_goal::capacity;
  setting.policy = inputs.dispatch;
  setting.base = inputs.base;
  setting.seed = flags.seed;
  setting.extra_seeds = std::move(known);
  // Half of the nodes may be small: a replica takes what it needs from any region.
  setting.across_regions = true;
  return search_batched(flags, how, inputs, setting, layout_setting_for(inputs)).lines;
}

double tokens_per_s(const input_flags& flags, const planning_inputs& inputs,
                    const std::vector<scheduler::pipeline>& lines) {
  return lines.empty() ? 0 : saturated(inputs, lines, flags.seed + 4243).tokens_per_s;
}

/// Adds lines of a part of the pool with the whole pool's numbers.
void add_lines(std::vector<scheduler::pipeline>& to, const scheduler::pool& whole,
               const scheduler::pool& part, std::vector<scheduler::pipeline> lines) {
  std::map<std::string, int> numbers;
  for (int device = 0; device < whole.devices(); ++device)
    numbers[whole.id(device)] = device;
  for (auto& line : lines) {
    for (auto& stage : line)
      for (int& device : stage.devices)
        device = numbers.at(part.id(device));
    to.push_back(std::move(line));
  }
}

/// Stages that a request passes on average.
int stages_of(const scheduler::flow_plan& plan, int layers) {
  int held = 0, ranges = 0;
  for (const auto& range : plan.ranges)
    if (range.layers > 0) {
      held += range.layers;
      ++ranges;
    }
  return held > 0 ? (layers * ranges + held - 1) / held : 1;
}

} // namespace

double best_flow(const input_flags& flags, const planning_inputs& inputs,
                 const std::function<scheduler::flow_plan(const scheduler::cost_model&)>& place) {
  if (!batches(inputs))
    return place(*inputs.costs).requests_per_s;
  const std::vector<int> sizes{4, 8, 16, 32, 64};
  std::vector<double> found(sizes.size());
  in_parallel(sizes.size(), threads, [&](std::size_t i) {
    // As many steps are under way as there are stages, which depends on what their KV leaves for
    // layers.
    int stages = 1;
    for (int attempt = 0; attempt < most_attempts && !interrupted(); ++attempt) {
      const auto costs = costs_for(flags, inputs, sizes[i], stages * sizes[i]);
      const auto plan = place(*costs);
      const int needed = stages_of(plan, costs->model().layers);
      if (needed <= stages) {
        found[i] = plan.requests_per_s;
        return;
      }
      stages = needed;
    }
  });
  return *std::max_element(found.begin(), found.end());
}

offline_figures compare_offline(const input_flags& flags, double seconds_each, bool progress) {
  const auto inputs = load_inputs(flags);
  offline_figures found;
  const double tokens = inputs->workload.mean_output();
  const auto shared_flow = [&](const planning_inputs& of) {
    return best_flow(flags, of, [&](const scheduler::cost_model& costs) {
      return scheduler::place_by_flow(costs, of.workload.kinds, flow_steps, flags.seed);
    });
  };
  const auto types = by_type(inputs->cluster);
  std::vector<scheduler::pipeline> together;
  for (const auto& type : types) {
    const auto alone = load_inputs(flags, type);
    auto lines =
        search_capacity(flags, *alone, seconds_each / static_cast<double>(types.size()), false, {});
    add_lines(together, *inputs->pool, *alone->pool, std::move(lines));
    found.separate_flow += tokens * shared_flow(*alone);
  }
  found.separate = tokens_per_s(flags, *inputs, together);
  // Each type alone is a plan as well, and where the search begins.
  std::vector<scheduler::grouping> known;
  if (!together.empty())
    known.push_back(scheduler::as_seed(*inputs->pool, together));
  const auto ours = search_capacity(flags, *inputs, 2 * seconds_each, progress, std::move(known));
  found.ours = std::max(tokens_per_s(flags, *inputs, ours), found.separate);
  const auto& kinds = inputs->workload.kinds;
  // What the types serve apart is a placement of the whole, too.
  found.shared_flow = std::max(tokens * shared_flow(*inputs), found.separate_flow);
  found.stages_flow = tokens * best_flow(flags, *inputs, [&](const scheduler::cost_model& costs) {
                        return scheduler::place_by_stages(costs, kinds);
                      });
  return found;
}

} // namespace hexgen::tools
