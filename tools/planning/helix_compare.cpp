#include "tools/planning/helix_compare.hpp"

#include "scheduler/flow_placement.hpp"
#include "tools/planning/batched_search.hpp"

#include <algorithm>
#include <map>

namespace hexgen::tools {

namespace {

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

struct served {
  double simulated = 0, flow = 0; // tokens per second
};

served search_capacity(const input_flags& flags, const planning_inputs& inputs, double seconds,
                       bool progress) {
  solve_flags how;
  how.seconds = seconds;
  how.progress = progress;
  scheduler::search_setting setting;
  setting.goal = scheduler::search_goal::capacity;
  setting.policy = inputs.dispatch;
  setting.base = inputs.base;
  setting.seed = flags.seed;
  // Half of the nodes may be small: a replica takes what it needs from any region.
  setting.across_regions = true;
  const auto found = search_batched(flags, how, inputs, setting, layout_setting_for(inputs));
  if (found.lines.empty())
    return {};
  served made;
  made.simulated = saturated(inputs, found.lines, flags.seed + 4243).tokens_per_s;
  for (const auto& line : found.lines) {
    double mean = 0;
    for (const auto& kind : inputs.workload.kinds)
      mean += kind.share *
              scheduler::time_pipeline(*found.costs, line, kind.prompt_tokens, kind.output_tokens)
                  .bottleneck_s;
    made.flow += inputs.workload.mean_output() / mean;
  }
  return made;
}

} // namespace

offline_figures compare_offline(const input_flags& flags, double seconds_each, bool progress) {
  const auto inputs = load_inputs(flags);
  offline_figures found;
  const auto ours = search_capacity(flags, *inputs, 6 * seconds_each, progress);
  found.ours = ours.simulated;
  found.ours_flow = ours.flow;
  const auto types = by_type(inputs->cluster);
  for (const auto& type : types) {
    const auto alone = load_inputs(flags, type);
    found.separate +=
        search_capacity(flags, *alone, 3 * seconds_each / static_cast<double>(types.size()), false)
            .simulated;
  }
  constexpr int steps = 20'000;
  for (const int concurrency : {8, 16, 32, 64, 128}) {
    const auto costs = costs_for(flags, *inputs, concurrency);
    const auto& kinds = inputs->workload.kinds;
    const double tokens = inputs->workload.mean_output();
    found.shared_flow = std::max(
        found.shared_flow,
        tokens * scheduler::place_by_flow(*costs, kinds, steps, flags.seed).requests_per_s);
    found.stages_flow = std::max(found.stages_flow,
                                 tokens * scheduler::place_by_stages(*costs, kinds).requests_per_s);
  }
  return found;
}

} // namespace hexgen::tools
