#include "scheduler/serving_planner.hpp"

#include "scheduler/serving_cost.hpp"
#include "scheduler/serving_explain.hpp"
#include "scheduler/serving_groups.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace hexgen::scheduler {

namespace {

void put_first_layers(serving_replica& replica) {
  int first = 0;
  for (auto& stage : replica.stages) {
    stage.first_layer = first;
    first += stage.layers;
  }
}

/// The devices that a manual layout names, in its order; `missing` says what is wrong.
std::vector<std::size_t> manual_order(const std::vector<serving_device>& devices,
                                      const manual_layout& layout, std::size_t replica,
                                      std::vector<bool>& used, std::size_t wanted,
                                      std::string& missing) {
  std::vector<std::size_t> order(devices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (devices[a].node != devices[b].node)
      return devices[a].node < devices[b].node;
    return devices[a].index != devices[b].index ? devices[a].index < devices[b].index : a < b;
  });
  std::vector<std::size_t> chosen;
  const bool placed = replica < layout.placement.size() && !layout.placement[replica].empty();
  if (placed) {
    std::map<std::string, std::size_t> by_name;
    for (const auto i : order)
      by_name.emplace(device_name(devices[i]), i);
    for (const auto& name : layout.placement[replica]) {
      const auto found = by_name.find(name);
      if (found == by_name.end())
        missing = "device " + name + " of the placement has not joined";
      else if (used[found->second])
        missing = "device " + name + " is placed twice";
      else {
        used[found->second] = true;
        chosen.push_back(found->second);
        continue;
      }
      return {};
    }
    if (chosen.size() != wanted)
      missing = "replica " + std::to_string(replica) + ": the placement names " +
                std::to_string(chosen.size()) + " devices, the stages need " +
                std::to_string(wanted);
    return chosen;
  }
  for (const auto i : order) {
    if (chosen.size() == wanted)
      break;
    if (used[i] || devices[i].draining)
      continue;
    used[i] = true;
    chosen.push_back(i);
  }
  if (chosen.size() < wanted)
    missing = "the layout needs " + std::to_string(wanted - chosen.size()) +
              " more devices than have joined";
  return chosen;
}

/// Empty, or why the stage cannot run as asked.
std::string check_stage(const serving_costs& costs, const std::vector<std::size_t>& members,
                        const stage_split& split, int layers, bool first, bool last) {
  for (std::size_t rank = 0; rank < members.size(); ++rank) {
    const auto& device = costs.devices[members[rank]];
    if (!costs.usable(members[rank]))
      return device_name(device) + " is " + costs.why_not(members[rank]);
    const double need = costs.stage_bytes(split, rank, layers, first, last);
    if (need > static_cast<double>(device.memory_bytes) * (1 + 1e-12))
      return device_name(device) + " needs " + format_bytes(need) + " for " +
             std::to_string(layers) + " layers and " + std::to_string(costs.goal.kv_tokens) +
             " tokens of KV, it has " + format_bytes(static_cast<double>(device.memory_bytes));
  }
  return {};
}

serving_plan fail(serving_plan plan, std::string missing) {
  plan.feasible = false;
  plan.replicas.clear();
  plan.missing = std::move(missing);
  return plan;
}

} // namespace

serving_plan plan_serving(const std::vector<serving_device>& devices,
                          const std::vector<serving_link>& links, const serving_model& model,
                          const serving_goal& goal) {
  const serving_costs costs(devices, links, model, goal);
  serving_plan plan;
  if (!costs.bad_input().empty())
    return fail(std::move(plan), costs.bad_input());
  plan.replicas = choose_replicas(costs);
  plan.feasible = !plan.replicas.empty();
  for (auto& replica : plan.replicas)
    put_first_layers(replica);
  if (!plan.feasible)
    plan.missing = explain_missing(costs);
  explain(costs, plan);
  return plan;
}

serving_plan plan_manual(const std::vector<serving_device>& devices,
                         const std::vector<serving_link>& links, const serving_model& model,
                         const serving_goal& goal, const manual_layout& layout) {
  const serving_costs costs(devices, links, model, goal);
  serving_plan plan;
  if (!costs.bad_input().empty())
    return fail(std::move(plan), costs.bad_input());
  if (layout.stages.empty() || layout.stages.size() != layout.layers.size())
    return fail(std::move(plan), "the layout needs stages and layers for as many replicas");
  std::vector<bool> used(devices.size(), false);
  for (std::size_t r = 0; r < layout.stages.size(); ++r) {
    const auto& degrees = layout.stages[r];
    const auto& layers = layout.layers[r];
    const auto label = "replica " + std::to_string(r);
    if (degrees.empty() || degrees.size() != layers.size())
      return fail(std::move(plan), label + ": " + std::to_string(degrees.size()) + " stages but " +
                                       std::to_string(layers.size()) + " layer counts");
    std::int64_t wanted = 0, total = 0;
    for (std::size_t j = 0; j < degrees.size(); ++j) {
      if (degrees[j] < 1 || degrees[j] > model.kv_heads)
        return fail(std::move(plan), label + ": degree " + std::to_string(degrees[j]) +
                                         " is not between 1 and the model's " +
                                         std::to_string(model.kv_heads) + " KV heads");
      if (layers[j] < 1)
        return fail(std::move(plan), label + ": every stage needs at least one layer");
      wanted += degrees[j];
      total += layers[j];
    }
    if (total != model.layers)
      return fail(std::move(plan), label + ": the stages hold " + std::to_string(total) +
                                       " layers, the model has " + std::to_string(model.layers));
    std::string missing;
    const auto order =
        manual_order(devices, layout, r, used, static_cast<std::size_t>(wanted), missing);
    if (!missing.empty())
      return fail(std::move(plan), missing);
    serving_replica replica;
    auto next = order.begin();
    for (std::size_t j = 0; j < degrees.size(); ++j) {
      serving_stage stage;
      stage.devices.assign(next, next + degrees[j]);
      next += degrees[j];
      stage.layers = layers[j];
      std::string wrong;
      bool fits = false;
      for (const auto member : stage.devices)
        if (!costs.usable(member))
          return fail(std::move(plan),
                      label + ": " + device_name(devices[member]) + " is " + costs.why_not(member));
      double least = std::numeric_limits<double>::infinity();
      for (const auto& split : costs.splits(stage.devices)) {
        auto message =
            check_stage(costs, stage.devices, split, layers[j], j == 0, j + 1 == degrees.size());
        if (!message.empty()) {
          if (wrong.empty())
            wrong = std::move(message);
          continue;
        }
        fits = true;
        if (split.request_us < least) {
          least = split.request_us;
          stage.speeds = split.speeds;
        }
      }
      if (!fits)
        return fail(std::move(plan), label + ", stage " + std::to_string(j) + ": " + wrong);
      replica.stages.push_back(std::move(stage));
    }
    put_first_layers(replica);
    costs.price(replica);
    if (!std::isfinite(replica.request_s))
      return fail(std::move(plan), label + ": " + explain_broken_link(costs, replica));
    plan.replicas.push_back(std::move(replica));
  }
  plan.feasible = true;
  explain(costs, plan);
  return plan;
}

} // namespace hexgen::scheduler
