#include "scheduler/replan.hpp"

#include "scheduler/plan_service.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

namespace hexgen::scheduler {

namespace {

/// Free devices of a region gathered into groups by chunks of `size`; leftovers join the last.
std::vector<device_group> gather_free(const layout_book& book, const device_group& parts,
                                      int size) {
  const double need = book.costs().model().layers;
  std::vector<device_group> groups;
  device_group now;
  const auto add = [](device_group& group, group_part part) {
    for (auto& known : group)
      if (known.machine == part.machine) {
        known.count += part.count;
        return;
      }
    group.push_back(part);
  };
  for (const auto& part : parts)
    for (int left = part.count; left > 0; left -= size) {
      add(now, {part.machine, std::min(size, left)});
      if (book.layer_room(now) >= need) {
        groups.push_back(std::move(now));
        now.clear();
      }
    }
  for (const auto& part : now) {
    if (groups.empty())
      groups.emplace_back();
    add(groups.back(), part);
  }
  for (auto& group : groups)
    std::sort(group.begin(), group.end());
  return groups;
}

struct way {
  std::vector<chosen_layout> layouts;
  grouping from;
};

} // namespace

std::vector<running_pipeline> name_devices(const pool& pool, const std::vector<pipeline>& lines) {
  std::vector<running_pipeline> named;
  for (const auto& line : lines) {
    auto& made = named.emplace_back();
    for (const auto& stage : line) {
      made.push_back({{}, stage.first_layer, stage.layers});
      for (const int device : stage.devices)
        made.back().devices.push_back(pool.id(device));
    }
  }
  return named;
}

carried carry_over(const cost_model& costs, const std::vector<running_pipeline>& running) {
  carried found;
  for (const auto& old : running) {
    pipeline line;
    bool whole = true;
    for (const auto& stage : old) {
      line.push_back({{}, stage.first_layer, stage.layers});
      for (const auto& id : stage.devices) {
        const int device = costs.devices().find(id);
        whole = whole && device >= 0;
        line.back().devices.push_back(device);
      }
    }
    // A link that became slow changes the price; one that is gone breaks the pipeline.
    if (whole && check_pipelines(costs, {line}, 1, 1).empty())
      found.intact.push_back(std::move(line));
    else
      ++found.broken;
  }
  return found;
}

device_group group_of(const pool& pool, const pipeline& line) {
  std::map<int, int> counts;
  for (const auto& stage : line)
    for (const int device : stage.devices)
      ++counts[pool.machine_of(device)];
  device_group group;
  for (const auto& [machine, count] : counts)
    group.push_back({machine, count});
  return group;
}

std::vector<pipeline> repair(layout_book& book, const config::workload& workload,
                             const search_setting& setting, const std::vector<pipeline>& intact) {
  const auto& pool = book.costs().devices();
  std::vector<bool> used(static_cast<std::size_t>(pool.devices()), false);
  grouping kept;
  std::vector<line_service> services;
  for (const auto& line : intact) {
    kept.genes.push_back({group_of(pool, line), 0});
    services.push_back(service_of(book.costs(), line, book.kinds(), occupancy::max_stage));
    for (const auto& stage : line)
      for (const int device : stage.devices)
        used[static_cast<std::size_t>(device)] = true;
  }
  std::map<int, device_group> free; // by region
  for (const auto& part : idle_parts(pool, kept))
    free[pool.region_of_node(pool.machines()[static_cast<std::size_t>(part.machine)].node)]
        .push_back(part);
  const auto stream = make_stream(workload, setting.requests, setting.seed * 2 + 1);
  std::vector<float> ratios;
  const auto judge = [&](const std::vector<chosen_layout>& layouts) {
    std::vector<const line_service*> lines;
    for (const auto& service : services)
      lines.push_back(&service);
    for (const auto& one : layouts)
      lines.push_back(&one.layout->service);
    if (lines.empty())
      return -std::numeric_limits<double>::infinity();
    simulate(lines, stream, {setting.policy, setting.rate, setting.base}, ratios);
    const double scale = scale_for(ratios, setting.share);
    return attainment(ratios, setting.slo_scale) - 1e-6 * std::min(scale, 1e4);
  };
  way best;
  double value = judge({});
  for (const int size : {1 << 20, 8, 4, 2, 1})
    for (const float choice : {0.0F, 0.5F, 1.0F}) {
      way attempt;
      for (const auto& [region, parts] : free)
        for (auto& group : gather_free(book, parts, size))
          attempt.from.genes.push_back({std::move(group), choice});
      attempt.layouts = choose_layouts(book, attempt.from);
      const double reached = judge(attempt.layouts);
      if (reached > value) {
        value = reached;
        best = std::move(attempt);
      }
    }
  auto lines = intact;
  // Free devices of a machine, in order, whichever of them intact pipelines left.
  std::vector<std::vector<int>> left(pool.machines().size());
  for (std::size_t m = 0; m < left.size(); ++m)
    for (const int device : pool.machines()[m].devices)
      if (!used[static_cast<std::size_t>(device)])
        left[m].push_back(device);
  std::vector<int> taken(left.size(), 0);
  for (const auto& one : best.layouts) {
    auto line = place_layout(pool, best.from.genes[one.gene].group, one.slots, *one.layout, taken);
    for (auto& stage : line)
      for (auto& device : stage.devices) {
        const auto machine = static_cast<std::size_t>(pool.machine_of(device));
        const auto& all = pool.machines()[machine].devices;
        const auto nth = std::find(all.begin(), all.end(), device) - all.begin();
        device = left[machine][static_cast<std::size_t>(nth)];
      }
    lines.push_back(std::move(line));
  }
  return lines;
}

grouping as_seed(const pool& pool, const std::vector<pipeline>& lines) {
  grouping seed;
  for (const auto& line : lines)
    seed.genes.push_back({group_of(pool, line), 0.5F});
  return seed;
}

std::vector<shard_move> moves_to(const cost_model& costs,
                                 const std::vector<running_pipeline>& running,
                                 const std::vector<pipeline>& next) {
  struct held {
    int first, layers;
    std::size_t degree, rank;
  };
  std::map<std::string, held> has;
  for (const auto& line : running)
    for (const auto& stage : line)
      for (std::size_t rank = 0; rank < stage.devices.size(); ++rank)
        has[stage.devices[rank]] = {stage.first_layer, stage.layers, stage.devices.size(), rank};
  const double layer_bytes = costs.model().layer_parameters() * costs.model().bytes_per_parameter;
  std::vector<shard_move> moves;
  for (const auto& line : next)
    for (const auto& stage : line)
      for (std::size_t rank = 0; rank < stage.devices.size(); ++rank) {
        const auto old = has.find(costs.devices().id(stage.devices[rank]));
        const double share = layer_bytes / static_cast<double>(stage.devices.size());
        int first = stage.first_layer;
        const int end = stage.first_layer + stage.layers;
        const auto need = [&](int from, int to) {
          if (to > from)
            moves.push_back({stage.devices[rank], from, to - from, (to - from) * share});
        };
        if (old == has.end() || old->second.degree != stage.devices.size() ||
            old->second.rank != rank) {
          need(first, end);
          continue;
        }
        const int kept_from = std::max(first, old->second.first);
        const int kept_to = std::min(end, old->second.first + old->second.layers);
        if (kept_to <= kept_from) {
          need(first, end);
          continue;
        }
        need(first, kept_from);
        need(kept_to, end);
      }
  return moves;
}

double reload_seconds(const std::vector<shard_move>& moves, double bytes_per_s) {
  std::map<int, double> bytes;
  double most = 0;
  for (const auto& move : moves)
    most = std::max(most, bytes[move.device] += move.bytes);
  return most / bytes_per_s;
}

bool switching_pays(double old_rate, double new_rate, double window_s, double reload_s) {
  return (new_rate - old_rate) * (window_s - reload_s) > old_rate * reload_s;
}

} // namespace hexgen::scheduler
