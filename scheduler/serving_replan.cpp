#include "scheduler/serving_replan.hpp"

#include "scheduler/replan.hpp"
#include "scheduler/serving_cost.hpp"
#include "scheduler/serving_explain.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace hexgen::scheduler {

namespace {

using device_key = std::pair<std::string, std::uint32_t>;

double rate_of(const serving_plan& plan) {
  double rate = 0;
  for (const auto& replica : plan.replicas)
    rate += replica.bottleneck_us > 0 ? 1e6 / replica.bottleneck_us : 0;
  return rate;
}

/// The old replicas in terms of the new devices; empty where a device or link is gone.
std::vector<serving_replica> carry(const serving_costs& costs,
                                   const std::vector<serving_device>& old_devices,
                                   const serving_plan& old_plan) {
  std::map<device_key, std::size_t> now;
  for (std::size_t i = 0; i < costs.devices.size(); ++i)
    if (costs.usable(i))
      now.emplace(device_key{costs.devices[i].node, costs.devices[i].index}, i);
  std::vector<serving_replica> carried;
  for (const auto& old : old_plan.replicas) {
    serving_replica replica = old;
    bool whole = true;
    for (std::size_t j = 0; j < replica.stages.size() && whole; ++j) {
      auto& stage = replica.stages[j];
      for (auto& device : stage.devices) {
        const auto found = now.find({old_devices[device].node, old_devices[device].index});
        whole = whole && found != now.end();
        if (whole)
          device = found->second;
      }
      if (!whole)
        break;
      const auto split = costs.split_by(stage.devices, stage.speeds);
      whole = stage.layers <=
              costs.layer_cap(stage.devices, split, j == 0, j + 1 == replica.stages.size());
    }
    if (whole) {
      costs.price(replica);
      whole = std::isfinite(replica.request_s);
    }
    carried.push_back(whole ? std::move(replica) : serving_replica{});
  }
  return carried;
}

bool same_placement(const serving_replica& a, const serving_replica& b) {
  if (a.stages.size() != b.stages.size())
    return false;
  for (std::size_t j = 0; j < a.stages.size(); ++j) {
    const auto& x = a.stages[j];
    const auto& y = b.stages[j];
    if (x.devices != y.devices || x.first_layer != y.first_layer || x.layers != y.layers ||
        x.speeds != y.speeds)
      return false;
  }
  return true;
}

/// What every device must load to go from the carried replicas to the new ones.
void count_moves(const serving_costs& costs, const std::vector<serving_replica>& carried,
                 double load_gbs, serving_change& change) {
  struct shard {
    int first, layers;
    double share;
    std::size_t rank, degree;
  };
  std::map<std::size_t, shard> held;
  for (const auto& replica : carried)
    for (const auto& stage : replica.stages) {
      const auto split = costs.split_by(stage.devices, stage.speeds);
      for (std::size_t rank = 0; rank < stage.devices.size(); ++rank)
        held[stage.devices[rank]] = {stage.first_layer, stage.layers, split.layer_share[rank], rank,
                                     stage.devices.size()};
    }
  std::map<std::size_t, double> seconds;
  for (const auto& replica : change.plan.replicas) {
    int same = -1;
    for (std::size_t i = 0; i < carried.size(); ++i)
      if (same_placement(carried[i], replica))
        same = static_cast<int>(i);
    change.kept.push_back(same);
    if (same >= 0)
      continue;
    for (const auto& stage : replica.stages) {
      const auto split = costs.split_by(stage.devices, stage.speeds);
      for (std::size_t rank = 0; rank < stage.devices.size(); ++rank) {
        const auto device = stage.devices[rank];
        const int end = stage.first_layer + stage.layers;
        int kept_from = end, kept_to = end;
        const auto old = held.find(device);
        if (old != held.end() && old->second.rank == rank &&
            old->second.degree == stage.devices.size() &&
            old->second.share == split.layer_share[rank]) {
          kept_from = std::clamp(old->second.first, stage.first_layer, end);
          kept_to = std::clamp(old->second.first + old->second.layers, kept_from, end);
          if (kept_from == kept_to)
            kept_from = kept_to = end;
        }
        const auto load = [&](int from, int to) {
          if (to <= from)
            return;
          const double bytes =
              (to - from) * static_cast<double>(costs.sizes_of(device).layer_bytes) *
              split.layer_share[rank];
          const double time = bytes / (std::max(load_gbs, 1e-6) * 1e9);
          change.moves.push_back(
              {device, from, to - from, static_cast<std::uint64_t>(bytes), time});
          change.reload_s = std::max(change.reload_s, seconds[device] += time);
        };
        load(stage.first_layer, kept_from);
        load(kept_to, end);
      }
    }
  }
}

serving_change repair_plan(const serving_costs& costs, const std::vector<serving_link>& links,
                           const std::vector<serving_replica>& carried, const serving_goal& goal) {
  serving_change change;
  std::vector<bool> used(costs.devices.size(), false);
  for (const auto& replica : carried) {
    if (replica.stages.empty())
      continue;
    change.plan.replicas.push_back(replica);
    for (const auto& stage : replica.stages)
      for (const auto device : stage.devices)
        used[device] = true;
  }
  const auto kept = static_cast<int>(change.plan.replicas.size());
  if (goal.max_replicas == 0 || kept < goal.max_replicas) {
    std::vector<serving_device> free;
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < costs.devices.size(); ++i)
      if (!used[i] && costs.usable(i)) {
        free.push_back(costs.devices[i]);
        index.push_back(i);
      }
    auto rest = goal;
    rest.max_replicas = goal.max_replicas == 0 ? 0 : goal.max_replicas - kept;
    auto more = plan_serving(free, links, costs.model, rest);
    for (auto& replica : more.replicas) {
      for (auto& stage : replica.stages)
        for (auto& device : stage.devices)
          device = index[device];
      change.plan.replicas.push_back(std::move(replica));
    }
  }
  change.plan.feasible = !change.plan.replicas.empty();
  if (!change.plan.feasible)
    change.plan.missing = explain_missing(costs);
  explain(costs, change.plan);
  return change;
}

std::string per_second(double rate) {
  return std::to_string(static_cast<long long>(rate));
}

} // namespace

serving_replan replan_serving(const std::vector<serving_device>& old_devices,
                              const serving_plan& old_plan,
                              const std::vector<serving_device>& devices,
                              const std::vector<serving_link>& links, const serving_model& model,
                              const serving_replan_goal& goal) {
  serving_replan answer;
  const serving_costs costs(devices, links, model, goal.plan);
  if (!costs.bad_input().empty()) {
    answer.repair.plan.missing = answer.refined.plan.missing = costs.bad_input();
    return answer;
  }
  const auto carried = carry(costs, old_devices, old_plan);
  const auto lost = static_cast<std::size_t>(std::count_if(
      carried.begin(), carried.end(), [](const auto& r) { return r.stages.empty(); }));
  answer.repair = repair_plan(costs, links, carried, goal.plan);
  count_moves(costs, carried, goal.load_gbs, answer.repair);
  double old_rate = 0;
  for (const auto& replica : carried)
    old_rate += replica.stages.empty() ? 0 : 1e6 / replica.bottleneck_us;
  const double repaired = rate_of(answer.repair.plan);
  // Nothing that serves is touched, so repairing pays whenever it adds a replica.
  answer.repair.pays = repaired > old_rate * (1 + 1e-9);
  answer.repair.why = std::to_string(lost) + " of " + std::to_string(carried.size()) +
                      " replicas lost; repaired rate " + per_second(repaired) +
                      " tokens/s, without repair " + per_second(old_rate);
  answer.refined.plan = plan_serving(devices, links, model, goal.plan);
  std::vector<serving_replica> after = answer.repair.plan.replicas;
  count_moves(costs, after, goal.load_gbs, answer.refined);
  const double refined = rate_of(answer.refined.plan);
  answer.refined.pays = answer.refined.plan.feasible &&
                        switching_pays(repaired, refined, goal.window_s, answer.refined.reload_s);
  // `kept` refers to the old plan in both answers.
  for (auto& kept : answer.refined.kept)
    if (kept >= 0)
      kept = answer.repair.kept[static_cast<std::size_t>(kept)];
  answer.refined.why = "a new plan would serve " + per_second(refined) + " tokens/s against " +
                       per_second(repaired) + "; loading takes " +
                       std::to_string(answer.refined.reload_s) + " s";
  return answer;
}

} // namespace hexgen::scheduler
