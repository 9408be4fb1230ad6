#include "scheduler/serving_groups.hpp"

#include "scheduler/serving_layout.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace hexgen::scheduler {

namespace {

// About half a second of work on one core.
constexpr double most_layout_work = 3e8;
constexpr double most_pairs = 3e7;

struct candidate {
  std::uint32_t code = 0;
  std::vector<int> counts;
  double worth = 0;
  const serving_replica* replica = nullptr;
};

double sub_codes(const serving_layout& layout) {
  double pairs = 1;
  for (const auto& kind : layout.classes()) {
    const auto n = static_cast<double>(kind.members.size());
    pairs *= (n + 1) * (n + 2) / 2;
  }
  return pairs;
}

const serving_replica* fastest(const std::vector<serving_layout::entry>& entries) {
  const serving_replica* best = nullptr;
  for (const auto& entry : entries)
    if (best == nullptr || entry.replica.request_s < best->request_s * (1 - 1e-12))
      best = &entry.replica;
  return best;
}

/// Replaces class members by ones that are still free.
void take_devices(serving_replica& replica, const serving_layout& layout,
                  std::vector<std::size_t>& next) {
  for (auto& stage : replica.stages)
    for (auto& device : stage.devices)
      for (std::size_t kind = 0; kind < layout.classes().size(); ++kind) {
        const auto& members = layout.classes()[kind].members;
        if (std::find(members.begin(), members.end(), device) != members.end()) {
          device = members[next[kind]++];
          break;
        }
      }
}

/// The best disjoint family: most[k][code] = greatest worth of at most k replicas within `code`.
std::vector<serving_replica> best_family(const serving_costs& costs, const serving_layout& layout,
                                         const std::vector<serving_layout::entry>& entries,
                                         int most_replicas) {
  const auto* quickest = fastest(entries);
  std::vector<candidate> candidates;
  for (const auto& entry : entries)
    candidates.push_back({entry.code, layout.counts(entry.code),
                          replica_worth(entry.replica, quickest->request_s), &entry.replica});
  const auto codes = static_cast<std::size_t>(layout.codes());
  std::vector<std::vector<int>> counts;
  for (std::uint32_t code = 0; code < codes; ++code)
    counts.push_back(layout.counts(code));
  struct choice {
    double worth = 0;
    int candidate = -1;
  };
  std::vector<std::vector<choice>> most(static_cast<std::size_t>(most_replicas) + 1,
                                        std::vector<choice>(codes));
  for (std::size_t k = 1; k < most.size(); ++k)
    for (std::size_t code = 1; code < codes; ++code)
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        const auto& added = candidates[i];
        if (added.code > code)
          break;
        bool inside = true;
        for (std::size_t kind = 0; kind < added.counts.size() && inside; ++kind)
          inside = added.counts[kind] <= counts[code][kind];
        if (!inside)
          continue;
        const double worth = added.worth + most[k - 1][code - added.code].worth;
        if (worth > most[k][code].worth * (1 + 1e-12))
          most[k][code] = {worth, static_cast<int>(i)};
      }
  std::vector<serving_replica> family;
  std::vector<std::size_t> next(layout.classes().size(), 0);
  auto code = codes - 1;
  for (std::size_t k = most.size() - 1; k > 0 && code > 0; --k) {
    // Fewer replicas of the same worth leave later rows without a choice.
    const int picked = most[k][code].candidate;
    if (picked < 0)
      break;
    const auto& added = candidates[static_cast<std::size_t>(picked)];
    auto replica = *added.replica;
    take_devices(replica, layout, next);
    costs.price(replica);
    family.push_back(std::move(replica));
    code -= added.code;
  }
  return family;
}

std::vector<serving_replica> solve_group(const serving_costs& costs,
                                         const std::vector<std::size_t>& members,
                                         int most_replicas) {
  const serving_layout layout(costs, members);
  if (layout.work() > most_layout_work || sub_codes(layout) > most_pairs)
    return {};
  const auto entries = layout.solve();
  if (entries.empty())
    return {};
  if (most_replicas == 1 && costs.goal.concurrency <= 1)
    return {*fastest(entries)};
  const auto limit = most_replicas == 0
                         ? std::min<int>(static_cast<int>(members.size()), 64)
                         : std::min<int>(most_replicas, static_cast<int>(members.size()));
  return best_family(costs, layout, entries, limit);
}

bool small_enough(const serving_costs& costs, const std::vector<std::size_t>& members) {
  const serving_layout layout(costs, members);
  return layout.work() <= most_layout_work && sub_codes(layout) <= most_pairs;
}

/// Large clusters: neighbourhoods grow from every node along its quickest links until they can
/// hold the model, then are solved exactly, each on what the earlier ones left.
std::vector<serving_replica> by_neighbourhood(const serving_costs& costs,
                                              std::vector<std::size_t> free, int most_replicas) {
  std::vector<serving_replica> found;
  // Fast devices first: they seed the neighbourhoods.
  std::stable_sort(free.begin(), free.end(), [&](std::size_t a, std::size_t b) {
    return costs.devices[a].decode_us_per_layer < costs.devices[b].decode_us_per_layer;
  });
  while (!free.empty()) {
    const auto seed = free.front();
    const int home = costs.node_of(seed);
    auto near = free;
    std::stable_sort(near.begin(), near.end(), [&](std::size_t a, std::size_t b) {
      const double x = costs.node_of(a) == home ? 0 : costs.request_hop_us(home, costs.node_of(a));
      const double y = costs.node_of(b) == home ? 0 : costs.request_hop_us(home, costs.node_of(b));
      return x < y;
    });
    std::vector<std::size_t> group;
    std::vector<serving_replica> replicas;
    for (const auto device : near) {
      auto larger = group;
      larger.push_back(device);
      if (!small_enough(costs, larger))
        continue;
      const bool other_node =
          !group.empty() && costs.node_of(group.back()) != costs.node_of(device);
      if (other_node) {
        replicas = solve_group(costs, group, most_replicas);
        if (!replicas.empty())
          break;
      }
      group = std::move(larger);
    }
    if (replicas.empty())
      replicas = solve_group(costs, group, most_replicas);
    std::vector<std::size_t> used;
    for (const auto& replica : replicas)
      for (const auto& stage : replica.stages)
        used.insert(used.end(), stage.devices.begin(), stage.devices.end());
    if (used.empty())
      used.push_back(seed); // cannot be part of anything here
    std::erase_if(free, [&](std::size_t device) {
      return std::find(used.begin(), used.end(), device) != used.end();
    });
    found.insert(found.end(), replicas.begin(), replicas.end());
  }
  return found;
}

/// Drops what does not pay and keeps the fastest first.
void order(std::vector<serving_replica>& replicas, int most_replicas) {
  std::stable_sort(
      replicas.begin(), replicas.end(),
      [](const serving_replica& a, const serving_replica& b) { return a.request_s < b.request_s; });
  if (most_replicas > 0 && replicas.size() > static_cast<std::size_t>(most_replicas))
    replicas.resize(static_cast<std::size_t>(most_replicas));
}

} // namespace

double replica_worth(const serving_replica& replica, double best_request_s) {
  const double discount = std::sqrt(std::min(1.0, best_request_s / replica.request_s));
  return 1 / std::max(replica.bottleneck_us, 1e-9) * discount;
}

std::vector<serving_replica> choose_replicas(const serving_costs& costs) {
  std::vector<std::size_t> usable;
  for (std::size_t i = 0; i < costs.devices.size(); ++i)
    if (costs.usable(i))
      usable.push_back(i);
  if (usable.empty())
    return {};
  const int most_replicas = std::max(0, costs.goal.max_replicas);
  auto replicas = small_enough(costs, usable) ? solve_group(costs, usable, most_replicas)
                                              : by_neighbourhood(costs, usable, most_replicas);
  order(replicas, most_replicas);
  return replicas;
}

} // namespace hexgen::scheduler
