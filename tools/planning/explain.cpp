#include "tools/planning/explain.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

namespace hexgen::tools {

namespace {

constexpr double gib = 1024.0 * 1024 * 1024;

std::string number(double value) {
  char text[48];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

/// Layers that one device of the kind holds at its best degree.
double layers_per_device(const planning_inputs& inputs, int kind, int count) {
  double most = 0;
  for (const int degree : inputs.costs->degrees())
    if (degree <= count)
      most =
          std::max(most, static_cast<double>(inputs.costs->layer_cap(kind, degree, {})) / degree);
  return most;
}

std::string why_stage(const planning_inputs& inputs, const scheduler::pipeline& line, std::size_t r,
                      std::size_t j, const std::vector<scheduler::stage_cost>& prices) {
  const auto& stage = line[j];
  const auto& kind = inputs.pool->kind(inputs.pool->kind_of(stage.devices.front()));
  const double compute = prices[j].compute_s, shared = prices[j].tensor_parallel_s;
  const scheduler::stage_position where{j == 0, j + 1 == line.size()};
  const int cap = inputs.costs->layer_cap(inputs.pool->kind_of(stage.devices.front()),
                                          static_cast<int>(stage.devices.size()), where);
  std::string text = "replica " + std::to_string(r) + " stage " + std::to_string(j) + ": " +
                     std::to_string(stage.devices.size()) + "x " + kind.name + ", " +
                     std::to_string(stage.layers) + " of at most " + std::to_string(cap) +
                     " layers; ";
  text += number(1e3 * (compute + shared) / stage.layers) + " ms a layer and request, " +
          (shared > compute ? "bound by all-reduces (" : "bound by its own speed (") +
          number(100 * std::max(shared, compute) / (compute + shared)) + " %)";
  if (stage.layers >= cap)
    text += "; memory is full";
  else {
    double slowest = 0;
    std::size_t at = 0;
    for (std::size_t i = 0; i < prices.size(); ++i)
      if (const double here = prices[i].compute_s + prices[i].tensor_parallel_s; here > slowest) {
        slowest = here;
        at = i;
      }
    const double here = prices[j].compute_s + prices[j].tensor_parallel_s;
    text += at == j                   ? "; the pipeline's slowest stage"
            : here > 0.9999 * slowest ? "; as slow as stage " + std::to_string(at)
                                      : "; faster than the slowest, stage " + std::to_string(at);
  }
  return text;
}

/// Regions that can reach each other through links, and how many layers each such set holds.
struct reach {
  std::vector<int> set_of;    // by region
  std::vector<double> layers; // by set
};

reach reachable(const planning_inputs& inputs, const std::vector<double>& by_region) {
  const auto& pool = *inputs.pool;
  std::vector<int> first(by_region.size(), -1); // a node of each region
  for (int node = pool.nodes(); node-- > 0;)
    first[static_cast<std::size_t>(pool.region_of_node(node))] = node;
  reach found;
  found.set_of.assign(by_region.size(), -1);
  for (std::size_t start = 0; start < by_region.size(); ++start) {
    if (found.set_of[start] >= 0)
      continue;
    const auto set = static_cast<int>(found.layers.size());
    found.layers.push_back(0);
    std::vector<std::size_t> open{start};
    found.set_of[start] = set;
    while (!open.empty()) {
      const auto at = open.back();
      open.pop_back();
      found.layers.back() += by_region[at];
      for (std::size_t other = 0; other < by_region.size(); ++other)
        if (found.set_of[other] < 0 && first[at] >= 0 && first[other] >= 0 &&
            pool.between_nodes(first[at], first[other]).usable()) {
          found.set_of[other] = set;
          open.push_back(other);
        }
    }
  }
  return found;
}

/// Enough devices, but not where links join them: names the pairs that lack one.
void explain_links(const planning_inputs& inputs, failed_plan& failure) {
  const auto& pool = *inputs.pool;
  const auto& cluster = inputs.cluster;
  std::vector<double> by_region(static_cast<std::size_t>(pool.regions()), 0);
  for (const auto& machine : pool.machines()) {
    const auto count = static_cast<int>(machine.devices.size());
    auto& sum = by_region[static_cast<std::size_t>(pool.region_of_node(machine.node))];
    const double here = layers_per_device(inputs, machine.kind, count) * count;
    // Without links inside a region its nodes stand alone.
    sum = cluster.intra_region.usable() ? sum + here : std::max(sum, here);
  }
  const auto sets = reachable(inputs, by_region);
  failure.violations.push_back({"", "layers that linked devices hold together",
                                static_cast<double>(inputs.model.layers),
                                *std::max_element(sets.layers.begin(), sets.layers.end())});
  const auto where = cluster.file + ":" + std::to_string(cluster.links_line) + ": ";
  if (!cluster.intra_region.usable() && pool.nodes() > pool.regions()) {
    failure.help = where + "links.intra_region: is absent, so nodes of one region cannot talk: add "
                           "{latency_ms: ..., bandwidth_gbps: ...}";
    return;
  }
  std::string pairs;
  int named = 0, missing = 0;
  for (std::size_t a = 0; a < by_region.size(); ++a)
    for (std::size_t b = a + 1; b < by_region.size(); ++b)
      if (sets.set_of[a] != sets.set_of[b] && ++missing && named < 3) {
        pairs += (named++ == 0 ? "" : ", ") +
                 ("[" + pool.region_name(static_cast<int>(a)) + ", " +
                  pool.region_name(static_cast<int>(b)) + "] (" + number(by_region[a]) + " and " +
                  number(by_region[b]) + " layers)");
      }
  if (missing == 0)
    failure.help = "the linked regions would hold the model together: allow --across-regions";
  else
    failure.help =
        where + "links.inter_region: no link between " + pairs +
        (missing > named ? " and " + std::to_string(missing - named) + " more pairs" : "") +
        ", which only together hold the " + std::to_string(inputs.model.layers) +
        " layers: add {between: [...], latency_ms: ..., bandwidth_gbps: ...}";
}

} // namespace

void explain_plan(const planning_inputs& inputs, bool every_stage, planned& plan) {
  std::vector<bool> used(static_cast<std::size_t>(inputs.pool->devices()), false);
  for (std::size_t r = 0; r < plan.lines.size(); ++r) {
    const auto prices = mean_prices(inputs, plan.lines[r]);
    for (std::size_t j = 0; j < plan.lines[r].size(); ++j) {
      for (const int device : plan.lines[r][j].devices)
        used[static_cast<std::size_t>(device)] = true;
      if (every_stage)
        plan.why.push_back(why_stage(inputs, plan.lines[r], r, j, prices));
    }
  }
  std::map<int, double> idle_layers; // by region: what its idle devices could hold together
  std::map<int, int> idle_count;
  for (int device = 0; device < inputs.pool->devices(); ++device)
    if (!used[static_cast<std::size_t>(device)]) {
      const int region = inputs.pool->region_of_node(inputs.pool->node_of(device));
      const auto& machine =
          inputs.pool->machines()[static_cast<std::size_t>(inputs.pool->machine_of(device))];
      idle_layers[region] +=
          layers_per_device(inputs, machine.kind, static_cast<int>(machine.devices.size()));
      ++idle_count[region];
    }
  for (int device = 0; device < inputs.pool->devices(); ++device) {
    if (used[static_cast<std::size_t>(device)])
      continue;
    const int region = inputs.pool->region_of_node(inputs.pool->node_of(device));
    const auto& machine =
        inputs.pool->machines()[static_cast<std::size_t>(inputs.pool->machine_of(device))];
    const double own =
        layers_per_device(inputs, machine.kind, static_cast<int>(machine.devices.size()));
    std::string why;
    if (own < 1e-9)
      why =
          "its memory of " + number(inputs.costs->room(device) / gib) + " GiB holds not one layer";
    else if (idle_layers[region] < inputs.model.layers)
      why = "the " + std::to_string(idle_count[region]) + " idle devices of " +
            inputs.pool->region_name(region) + " hold " + number(idle_layers[region]) + " of " +
            std::to_string(inputs.model.layers) +
            " layers: too few for a replica, and in another one they would add more latency or " +
            "hops than rate";
    else
      why = "a replica of the idle devices would answer too slowly to be given requests";
    plan.idle.push_back({device, std::move(why)});
  }
}

failed_plan explain_failure(const planning_inputs& inputs) {
  failed_plan failure;
  double all = 0, short_layers = inputs.model.layers;
  for (const auto& machine : inputs.pool->machines()) {
    const auto count = static_cast<int>(machine.devices.size());
    const double layers = layers_per_device(inputs, machine.kind, count) * count;
    all += layers;
    if (layers == 0) {
      const auto cost = inputs.costs->stage({machine.devices.front()}, 1, {}, inputs.longest_prompt,
                                            inputs.longest_output);
      failure.violations.push_back({inputs.pool->id(machine.devices.front()),
                                    "memory_bytes of one layer", cost.memory_bytes,
                                    inputs.costs->room(machine.devices.front())});
    }
  }
  short_layers -= all;
  const double layer_bytes =
      inputs.pool->devices() == 0
          ? 0
          : inputs.costs->stage({0}, 2, {}, inputs.longest_prompt, inputs.longest_output)
                    .memory_bytes -
                inputs.costs->stage({0}, 1, {}, inputs.longest_prompt, inputs.longest_output)
                    .memory_bytes;
  if (inputs.pool->devices() == 0) {
    failure.violations.push_back({"", "devices", 1, 0});
    failure.help = "the cluster has no devices: add nodes";
  } else if (short_layers > 0) {
    failure.violations.push_back({"", "layers that all devices hold together",
                                  static_cast<double>(inputs.model.layers), all});
    failure.help = number(std::ceil(short_layers)) + " layers, about " +
                   number(short_layers * layer_bytes / gib) +
                   " GiB, are missing: add devices, a model with fewer bytes a parameter, or "
                   "shorter requests";
  } else {
    explain_links(inputs, failure);
  }
  return failure;
}

} // namespace hexgen::tools
