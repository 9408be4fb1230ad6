#include "scheduler/serving_layout.hpp"

#include "scheduler/serving_groups.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace hexgen::scheduler {

namespace {

constexpr double alike = 0.03; // measurements of equal devices differ by about this much

bool within(double a, double b) {
  return std::abs(a - b) <= alike * std::max(a, b);
}

bool alike_devices(const serving_device& a, const serving_device& b) {
  return within(static_cast<double>(a.memory_bytes), static_cast<double>(b.memory_bytes)) &&
         within(a.decode_us_per_layer, b.decode_us_per_layer) &&
         within(a.prefill_us_per_token_layer, b.prefill_us_per_token_layer) &&
         within(a.head_us, b.head_us);
}

} // namespace

serving_layout::serving_layout(const serving_costs& costs, std::vector<std::size_t> members)
    : costs_(costs) {
  // Most memory first, so that leaders, who hold the embedding, have the most room.
  std::sort(members.begin(), members.end(), [&](std::size_t a, std::size_t b) {
    if (costs.node_of(a) != costs.node_of(b))
      return costs.node_of(a) < costs.node_of(b);
    const auto& x = costs.devices[a];
    const auto& y = costs.devices[b];
    if (x.memory_bytes != y.memory_bytes)
      return x.memory_bytes > y.memory_bytes;
    return x.index != y.index ? x.index < y.index : a < b;
  });
  for (const auto member : members) {
    auto same = std::find_if(classes_.begin(), classes_.end(), [&](const device_class& other) {
      return other.node == costs.node_of(member) &&
             alike_devices(costs.devices[other.members.front()], costs.devices[member]);
    });
    if (same == classes_.end())
      classes_.push_back({costs.node_of(member), {member}});
    else
      same->members.push_back(member);
  }
  // Layouts are computed for the first members: let these have the least memory of their class.
  for (auto& kind : classes_)
    std::sort(kind.members.begin(), kind.members.end(), [&](std::size_t a, std::size_t b) {
      const auto& x = costs.devices[a];
      const auto& y = costs.devices[b];
      if (x.memory_bytes != y.memory_bytes)
        return x.memory_bytes < y.memory_bytes;
      return x.index != y.index ? x.index < y.index : a < b;
    });
}

double serving_layout::codes() const {
  double codes = 1;
  for (const auto& kind : classes_)
    codes *= static_cast<double>(kind.members.size() + 1);
  return codes;
}

double serving_layout::work() const {
  double nodes = 0, options = 0;
  for (std::size_t i = 0; i < classes_.size();) {
    double sets = 1;
    const int node = classes_[i].node;
    for (; i < classes_.size() && classes_[i].node == node; ++i)
      sets *= static_cast<double>(classes_[i].members.size() + 1);
    options += sets - 1;
    nodes += 1;
  }
  return codes() * nodes * nodes * 2 * costs_.model.layers * options;
}

std::vector<int> serving_layout::counts(std::uint32_t code) const {
  std::vector<int> found;
  for (const auto& kind : classes_) {
    const auto base = static_cast<std::uint32_t>(kind.members.size() + 1);
    found.push_back(static_cast<int>(code % base));
    code /= base;
  }
  return found;
}

/// Every set of one node's devices, counted per class, with every split worth considering.
void serving_layout::add_options(std::size_t begin, std::size_t end, stage_problem& problem,
                                 std::vector<stage_split>& splits) const {
  std::vector<int> take(end - begin, 0);
  for (;;) {
    std::size_t digit = 0;
    while (digit < take.size() &&
           take[digit] == static_cast<int>(classes_[begin + digit].members.size()))
      take[digit++] = 0;
    if (digit == take.size())
      return;
    ++take[digit];
    stage_option option;
    option.node = classes_[begin].node;
    std::vector<std::size_t> members;
    for (std::size_t i = 0; i < take.size(); ++i) {
      if (take[i] == 0)
        continue;
      option.takes.emplace_back(static_cast<int>(begin + i), take[i]);
      const auto& all = classes_[begin + i].members;
      members.insert(members.end(), all.begin(), all.begin() + take[i]);
    }
    for (auto& split : costs_.splits(members)) {
      option.per_layer = split.request_us;
      option.as_last = (1 + costs_.further_tokens()) * split.head_us;
      option.cap_middle = costs_.layer_cap(members, split, false, false);
      option.cap_first = costs_.layer_cap(members, split, true, false);
      option.cap_last = costs_.layer_cap(members, split, false, true);
      option.cap_only = costs_.layer_cap(members, split, true, true);
      if (option.cap_middle == 0)
        continue;
      problem.options.push_back(option);
      splits.push_back(std::move(split));
    }
  }
}

/// The replica with any of its stages as the last and layers shared out by load: each further layer
/// goes where the stage is done with it first, which makes the slowest as fast as can be.
serving_replica serving_layout::evened(const serving_replica& replica) const {
  auto best = replica;
  const auto count = replica.stages.size();
  for (std::size_t last = 0; last < count; ++last) {
    auto made = replica;
    std::rotate(made.stages.begin() + static_cast<std::ptrdiff_t>(last),
                made.stages.begin() + static_cast<std::ptrdiff_t>(last) + 1, made.stages.end());
    std::vector<stage_split> splits;
    int left = costs_.model.layers;
    for (auto& stage : made.stages) {
      splits.push_back(costs_.split_by(stage.devices, stage.speeds));
      stage.layers = 1;
      --left;
    }
    const auto loaded = [&](std::size_t j, int layers) {
      const bool end = j + 1 == count;
      return layers > costs_.layer_cap(made.stages[j].devices, splits[j], j == 0, end)
                 ? std::numeric_limits<double>::infinity()
                 : costs_.load_us(splits[j], layers, end, count);
    };
    bool fits = left >= 0;
    for (std::size_t j = 0; j < count; ++j)
      fits = fits && std::isfinite(loaded(j, 1));
    for (; fits && left > 0; --left) {
      std::size_t next = 0;
      for (std::size_t j = 1; j < count; ++j)
        if (loaded(j, made.stages[j].layers + 1) < loaded(next, made.stages[next].layers + 1))
          next = j;
      fits = std::isfinite(loaded(next, made.stages[next].layers + 1));
      ++made.stages[next].layers;
    }
    if (!fits)
      continue;
    int first = 0;
    for (auto& stage : made.stages)
      stage.first_layer = std::exchange(first, first + stage.layers);
    costs_.price(made);
    if (std::isfinite(made.request_s) &&
        replica_worth(made, replica.request_s) > replica_worth(best, replica.request_s))
      best = std::move(made);
  }
  return best;
}

std::vector<serving_layout::entry> serving_layout::solve() const {
  stage_problem problem;
  problem.layers = costs_.model.layers;
  problem.nodes = costs_.nodes();
  for (const auto& kind : classes_)
    problem.class_sizes.push_back(static_cast<int>(kind.members.size()));
  for (int from = 0; from < problem.nodes; ++from)
    for (int to = 0; to < problem.nodes; ++to) {
      problem.hop.push_back(costs_.request_hop_us(from, to));
      problem.way_back.push_back(costs_.request_return_us(from, to));
    }
  std::vector<stage_split> splits;
  for (std::size_t begin = 0; begin < classes_.size();) {
    std::size_t end = begin;
    while (end < classes_.size() && classes_[end].node == classes_[begin].node)
      ++end;
    add_options(begin, end, problem, splits);
    begin = end;
  }
  std::vector<entry> found;
  for (const auto& sequence : sequence_stages(problem)) {
    if (!(sequence.cost < std::numeric_limits<double>::infinity()))
      continue; // no way back for the token
    serving_replica replica;
    std::vector<std::size_t> next(classes_.size(), 0);
    int first = 0;
    for (const auto& step : sequence.stages) {
      const auto option = static_cast<std::size_t>(step.option);
      serving_stage stage;
      stage.first_layer = first;
      stage.layers = step.layers;
      first += step.layers;
      for (const auto& [kind, count] : problem.options[option].takes)
        for (int n = 0; n < count; ++n) {
          const auto index = static_cast<std::size_t>(kind);
          stage.devices.push_back(classes_[index].members[next[index]++]);
        }
      stage.speeds = splits[option].speeds;
      replica.stages.push_back(std::move(stage));
    }
    costs_.price(replica);
    if (costs_.goal.concurrency > 1)
      replica = evened(replica);
    found.push_back({sequence.code, std::move(replica)});
  }
  return found;
}

} // namespace hexgen::scheduler
