#include "scheduler/baselines.hpp"

#include "scheduler/grouping.hpp"

#include <algorithm>
#include <map>

namespace hexgen::scheduler {

namespace {

/// Sets of `degree` devices of one machine, by region, machines in file order.
std::map<int, std::vector<std::vector<int>>> device_sets(const pool& pool, int degree) {
  std::map<int, std::vector<std::vector<int>>> found;
  for (const auto& machine : pool.machines()) {
    auto& sets = found[pool.region_of_node(machine.node)];
    const auto count = static_cast<int>(machine.devices.size());
    for (int i = 0; i + degree <= count; i += degree)
      sets.emplace_back(machine.devices.begin() + i, machine.devices.begin() + i + degree);
  }
  return found;
}

bool fits(const cost_model& costs, const pipeline& line) {
  for (std::size_t j = 0; j < line.size(); ++j) {
    const stage_position where{j == 0, j + 1 == line.size()};
    const int kind = costs.devices().kind_of(line[j].devices.front());
    if (line[j].layers > costs.layer_cap(kind, static_cast<int>(line[j].devices.size()), where))
      return false;
  }
  return true;
}

} // namespace

std::vector<pipeline> one_shape(const cost_model& costs, int degree, int stages) {
  std::vector<pipeline> lines;
  const int layers = costs.model().layers;
  for (const auto& [region, sets] : device_sets(costs.devices(), degree)) {
    const auto count = static_cast<std::size_t>(stages);
    for (std::size_t begin = 0; begin + count <= sets.size(); begin += count) {
      pipeline line;
      int first = 0;
      for (int j = 0; j < stages; ++j) {
        const int here = layers / stages + (j < layers % stages ? 1 : 0);
        line.push_back({sets[begin + static_cast<std::size_t>(j)], first, here});
        first += here;
      }
      if (fits(costs, line))
        lines.push_back(std::move(line));
    }
  }
  return lines;
}

std::vector<shape> possible_shapes(const cost_model& costs) {
  std::vector<shape> found;
  for (const int degree : costs.degrees())
    for (int stages = 1; stages <= std::min(costs.model().layers, 64); ++stages)
      if (!one_shape(costs, degree, stages).empty())
        found.push_back({degree, stages});
  return found;
}

std::vector<pipeline> pipeline_only(const cost_model& costs) {
  const auto& pool = costs.devices();
  std::vector<bool> used(static_cast<std::size_t>(pool.devices()), false);
  std::vector<pipeline> lines;
  for (int start = 0; start < pool.devices(); ++start) {
    if (used[static_cast<std::size_t>(start)])
      continue;
    pipeline line;
    std::vector<int> taken;
    int placed = 0, device = start;
    while (device >= 0) {
      const int kind = pool.kind_of(device);
      used[static_cast<std::size_t>(device)] = true;
      const int left = costs.model().layers - placed;
      const int closing = std::min(left, costs.layer_cap(kind, 1, {line.empty(), true}));
      const int middle = std::min(left, costs.layer_cap(kind, 1, {line.empty(), false}));
      const int count = closing == left ? left : std::min(middle, left - 1);
      if (count > 0) {
        line.push_back({{device}, placed, count});
        taken.push_back(device);
        placed += count;
      }
      if (placed == costs.model().layers)
        break;
      // The nearest device that is still free.
      int next = -1;
      double least = 0;
      for (int other = 0; other < pool.devices(); ++other) {
        if (used[static_cast<std::size_t>(other)])
          continue;
        const auto link = pool.between(device, other);
        if (link.usable() && (next < 0 || link.alpha_s < least)) {
          next = other;
          least = link.alpha_s;
        }
      }
      device = next;
    }
    if (placed == costs.model().layers)
      lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::vector<pipeline>> baseline_plans(const cost_model& costs,
                                                  const std::vector<config::request_kind>& kinds,
                                                  occupancy mode) {
  std::vector<std::vector<pipeline>> plans;
  const auto offer = [&](std::vector<pipeline> lines) {
    // One shape takes no notice of links: a pipeline that has none to its next stage goes.
    std::erase_if(lines, [&](const pipeline& line) {
      return !check_pipelines(costs, {line}, kinds.front().prompt_tokens,
                              kinds.front().output_tokens)
                  .empty();
    });
    if (!lines.empty() && std::find(plans.begin(), plans.end(), lines) == plans.end())
      plans.push_back(std::move(lines));
  };
  const auto& pool = costs.devices();
  for (const auto& shape : possible_shapes(costs)) {
    const auto everywhere = one_shape(costs, shape.degree, shape.stages);
    offer(everywhere);
    for (int kind = 0; kind < pool.kinds(); ++kind) {
      auto alone = everywhere;
      std::erase_if(alone, [&](const pipeline& line) {
        return std::any_of(line.begin(), line.end(), [&](const stage& one) {
          return pool.kind_of(one.devices.front()) != kind;
        });
      });
      offer(std::move(alone));
    }
  }
  layout_setting even;
  even.mode = mode;
  even.rule = layout_rule::even;
  layout_book book(costs, kinds, even);
  for (const auto& seed : seed_groupings(book))
    offer(place_grouping(book, seed));
  constexpr int most_devices = 2048; // Petals' looks at every pair
  if (pool.devices() <= most_devices)
    offer(pipeline_only(costs));
  return plans;
}

} // namespace hexgen::scheduler
