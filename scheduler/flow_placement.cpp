#include "scheduler/flow_placement.hpp"

#include "scheduler/random.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Dinic's algorithm on real capacities; paths thinner than a millionth of the largest capacity are
/// left, which bounds the number of rounds.
class flow_network {
public:
  explicit flow_network(std::size_t vertices)
      : edges_of_(vertices), level_(vertices), next_(vertices) {}

  void add(std::size_t from, std::size_t to, double capacity) {
    edges_of_[from].push_back(edges_.size());
    edges_.push_back({to, capacity});
    edges_of_[to].push_back(edges_.size());
    edges_.push_back({from, 0});
    if (capacity < infinity)
      least_ = std::max(least_, capacity * 1e-6);
  }

  double run(std::size_t source, std::size_t sink) {
    double total = 0;
    while (layer(source, sink)) {
      std::fill(next_.begin(), next_.end(), 0);
      for (double pushed = push(source, sink, infinity); pushed > least_;
           pushed = push(source, sink, infinity))
        total += pushed;
    }
    return total;
  }

private:
  struct edge {
    std::size_t to;
    double left;
  };

  bool layer(std::size_t source, std::size_t sink) {
    std::fill(level_.begin(), level_.end(), -1);
    std::queue<std::size_t> reached;
    reached.push(source);
    level_[source] = 0;
    while (!reached.empty()) {
      const auto at = reached.front();
      reached.pop();
      for (const auto number : edges_of_[at])
        if (edges_[number].left > least_ && level_[edges_[number].to] < 0) {
          level_[edges_[number].to] = level_[at] + 1;
          reached.push(edges_[number].to);
        }
    }
    return level_[sink] >= 0;
  }

  double push(std::size_t at, std::size_t sink, double most) {
    if (at == sink)
      return most;
    for (auto& i = next_[at]; i < edges_of_[at].size(); ++i) {
      const auto number = edges_of_[at][i];
      auto& out = edges_[number];
      if (out.left <= least_ || level_[out.to] != level_[at] + 1)
        continue;
      const double pushed = push(out.to, sink, std::min(most, out.left));
      if (pushed > least_) {
        edges_[number].left -= pushed;
        edges_[number ^ 1].left += pushed;
        return pushed;
      }
    }
    return 0;
  }

  std::vector<std::vector<std::size_t>> edges_of_;
  std::vector<edge> edges_;
  std::vector<int> level_;
  std::vector<std::size_t> next_;
  double least_ = 0;
};

} // namespace

double max_flow(const cost_model& costs, const std::vector<layer_range>& ranges) {
  const auto count = ranges.size();
  const int layers = costs.model().layers;
  const auto& machines = costs.devices().machines();
  flow_network network(2 * count + 2);
  const auto source = 2 * count, sink = source + 1;
  for (std::size_t i = 0; i < count; ++i) {
    if (ranges[i].layers < 1)
      continue;
    network.add(2 * i, 2 * i + 1, ranges[i].requests_per_s);
    const int end = ranges[i].first_layer + ranges[i].layers;
    if (ranges[i].first_layer == 0)
      network.add(source, 2 * i, infinity);
    if (end == layers)
      network.add(2 * i + 1, sink, infinity);
    const int node = machines[static_cast<std::size_t>(ranges[i].machine)].node;
    for (std::size_t j = 0; j < count; ++j) {
      const int other = machines[static_cast<std::size_t>(ranges[j].machine)].node;
      if (i != j && ranges[j].first_layer <= end &&
          ranges[j].first_layer + ranges[j].layers > end &&
          costs.devices().between_nodes(node, other).usable())
        network.add(2 * i + 1, 2 * j, infinity);
    }
  }
  return network.run(source, sink);
}

namespace {

/// What a machine gives at the largest degree that its devices allow.
struct machine_speed {
  double per_layer = 0; // seconds of the mean request
  int cap = 0;          // layers
};

std::vector<machine_speed> machine_speeds(const cost_model& costs,
                                          const std::vector<config::request_kind>& kinds) {
  std::vector<machine_speed> speeds;
  for (const auto& machine : costs.devices().machines()) {
    int degree = 1;
    for (const int allowed : costs.degrees())
      if (allowed <= static_cast<int>(machine.devices.size()))
        degree = allowed;
    const std::vector<int> devices(machine.devices.begin(), machine.devices.begin() + degree);
    machine_speed speed;
    for (const auto& kind : kinds)
      speed.per_layer +=
          kind.share * costs.busy(devices, 1, {}, kind.prompt_tokens, kind.output_tokens);
    // Where a range ends up is open, so room for embedding and head is kept everywhere.
    speed.cap =
        std::min({costs.model().layers, costs.layer_cap(machine.kind, degree, {true, false}),
                  costs.layer_cap(machine.kind, degree, {false, true})});
    speeds.push_back(speed);
  }
  return speeds;
}

layer_range range_of(const std::vector<machine_speed>& speeds, int machine, int first, int count) {
  const auto& speed = speeds[static_cast<std::size_t>(machine)];
  return {machine, first, count, count > 0 ? 1 / (count * speed.per_layer) : 0};
}

} // namespace

flow_plan place_by_stages(const cost_model& costs, const std::vector<config::request_kind>& kinds) {
  const auto speeds = machine_speeds(costs, kinds);
  const int layers = costs.model().layers;
  int weakest = layers;
  for (const auto& speed : speeds)
    weakest = std::min(weakest, std::max(1, speed.cap));
  const int stages = (layers + weakest - 1) / weakest;
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(speeds.size()); ++i)
    if (speeds[static_cast<std::size_t>(i)].cap >= 1)
      order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return speeds[static_cast<std::size_t>(a)].per_layer <
           speeds[static_cast<std::size_t>(b)].per_layer;
  });
  // The quickest machines first, each to the stage that has least.
  flow_plan plan;
  std::vector<double> reached(static_cast<std::size_t>(stages), 0);
  for (const int machine : order) {
    const auto stage =
        static_cast<int>(std::min_element(reached.begin(), reached.end()) - reached.begin());
    const int first = stage * layers / stages, end = (stage + 1) * layers / stages;
    plan.ranges.push_back(range_of(speeds, machine, first, end - first));
    reached[static_cast<std::size_t>(stage)] += plan.ranges.back().requests_per_s;
  }
  plan.requests_per_s = max_flow(costs, plan.ranges);
  return plan;
}

flow_plan place_by_flow(const cost_model& costs, const std::vector<config::request_kind>& kinds,
                        int iterations, std::uint64_t seed) {
  const auto speeds = machine_speeds(costs, kinds);
  const auto& machines = costs.devices().machines();
  const int layers = costs.model().layers;
  const auto range = [&](int machine, int first, int count) {
    return range_of(speeds, machine, first, count);
  };
  flow_plan best;
  int first = 0;
  for (int i = 0; i < static_cast<int>(machines.size()); ++i) {
    const int count = std::min(speeds[static_cast<std::size_t>(i)].cap, layers - first);
    best.ranges.push_back(range(i, first, count));
    first += count;
    if (first >= layers)
      first = 0;
  }
  best.requests_per_s = max_flow(costs, best.ranges);
  random_source random(seed);
  auto now = best;
  for (int step = 0; step < iterations; ++step) {
    auto attempt = now;
    const auto changes = 1 + random.below(2);
    for (std::uint32_t c = 0; c < changes; ++c) {
      const auto i = random.below(static_cast<std::uint32_t>(machines.size()));
      const int cap = speeds[i].cap;
      if (cap < 1)
        continue;
      const int count = random.below(3) == 0
                            ? 1 + static_cast<int>(random.below(static_cast<std::uint32_t>(cap)))
                            : cap;
      int start = 0;
      if (random.below(2) == 0) {
        // Where another range ends, or so that this one ends where another begins.
        const auto& other = now.ranges[random.below(static_cast<std::uint32_t>(machines.size()))];
        start = random.below(2) == 0 ? other.first_layer + other.layers : other.first_layer - count;
      } else {
        start = static_cast<int>(random.below(static_cast<std::uint32_t>(layers)));
      }
      start = std::clamp(start, 0, layers - count);
      attempt.ranges[i] = range(static_cast<int>(i), start, count);
    }
    attempt.requests_per_s = max_flow(costs, attempt.ranges);
    // Annealed: a little worse is taken early on.
    const double heat = 0.05 * (1 - static_cast<double>(step) / iterations);
    if (attempt.requests_per_s >= now.requests_per_s * (1 - heat * random.uniform())) {
      now = std::move(attempt);
      if (now.requests_per_s > best.requests_per_s)
        best = now;
    }
  }
  return best;
}

} // namespace hexgen::scheduler
