#include "scheduler/layout_optimum.hpp"

#include "scheduler/stage_sequence.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

namespace hexgen::scheduler {

namespace {

constexpr double most_work = 4e8;

/// Costs at fractional lengths, by linearity.
struct lengths {
  double prompt, output;

  template <class Cost>
  [[nodiscard]] double mean(Cost&& cost) const {
    const int in = static_cast<int>(prompt), out = static_cast<int>(output);
    const double here = cost(in, out);
    double value = here;
    if (prompt > in)
      value += (prompt - in) * (cost(in + 1, out) - here);
    if (output > out)
      value += (output - out) * (cost(in, out + 1) - here);
    return value;
  }
};

struct built {
  stage_problem problem;
  std::vector<int> machines;
  std::vector<int> degrees; // by option
};

built build(const cost_model& costs, const std::vector<int>& machines, const lengths& size) {
  built made;
  made.machines = machines;
  auto& problem = made.problem;
  problem.layers = costs.model().layers;
  problem.nodes = static_cast<int>(machines.size());
  const auto& all = costs.devices().machines();
  for (std::size_t i = 0; i < machines.size(); ++i) {
    const auto& place = all[static_cast<std::size_t>(machines[i])];
    const auto count = static_cast<int>(place.devices.size());
    problem.class_sizes.push_back(count);
    for (const int degree : costs.degrees()) {
      if (degree > count)
        break;
      const std::vector<int> devices(place.devices.begin(), place.devices.begin() + degree);
      const auto seconds = [&](int layers, stage_position where) {
        return size.mean([&](int prompt, int output) {
          const auto cost = costs.stage(devices, layers, where, prompt, output);
          return cost.compute_s + cost.tensor_parallel_s;
        });
      };
      stage_option option;
      option.node = static_cast<int>(i);
      option.takes = {{static_cast<int>(i), degree}};
      option.per_layer = seconds(1, {});
      option.as_last = seconds(1, {false, true}) - option.per_layer;
      option.cap_middle = costs.layer_cap(place.kind, degree, {});
      option.cap_first = costs.layer_cap(place.kind, degree, {true, false});
      option.cap_last = costs.layer_cap(place.kind, degree, {false, true});
      option.cap_only = costs.layer_cap(place.kind, degree, {true, true});
      if (option.cap_middle < 1 || !std::isfinite(option.per_layer))
        continue;
      problem.options.push_back(option);
      made.degrees.push_back(degree);
    }
  }
  for (const int from : machines)
    for (const int to : machines) {
      // Two devices, since a device has no hop to itself; a lone device never needs one.
      const auto& a = all[static_cast<std::size_t>(from)].devices;
      const auto& b = all[static_cast<std::size_t>(to)].devices;
      const std::vector<int> left{a.front()}, right{b.back()};
      problem.hop.push_back(size.mean(
          [&](int prompt, int output) { return costs.hop(left, right, prompt, output); }));
      problem.way_back.push_back(
          size.mean([&](int, int output) { return costs.way_back(left, right, output); }));
    }
  return made;
}

struct best_so_far {
  double cost = std::numeric_limits<double>::infinity();
  pipeline line;
};

void solve(const cost_model& costs, const std::vector<int>& machines, const lengths& size,
           best_so_far& best) {
  const auto made = build(costs, machines, size);
  if (made.problem.options.empty() || sequence_work(made.problem) > most_work)
    return;
  const stage_sequence* found = nullptr;
  const auto sequences = sequence_stages(made.problem);
  for (const auto& sequence : sequences)
    if (sequence.cost < best.cost) {
      best.cost = sequence.cost;
      found = &sequence;
    }
  if (found == nullptr)
    return;
  best.line.clear();
  std::vector<std::size_t> next(machines.size(), 0);
  int first = 0;
  for (const auto& step : found->stages) {
    const auto option = static_cast<std::size_t>(step.option);
    const auto slot = static_cast<std::size_t>(made.problem.options[option].node);
    const auto& devices =
        costs.devices().machines()[static_cast<std::size_t>(machines[slot])].devices;
    stage made_stage;
    for (int i = 0; i < made.degrees[option]; ++i)
      made_stage.devices.push_back(devices[next[slot]++]);
    made_stage.first_layer = first;
    made_stage.layers = step.layers;
    first += step.layers;
    best.line.push_back(std::move(made_stage));
  }
}

/// Every way to take up to three machines, alike ones counted once.
void solve_small_sets(const cost_model& costs, const lengths& size, best_so_far& best) {
  const auto& all = costs.devices().machines();
  const auto name = [&](int i) {
    const auto& place = all[static_cast<std::size_t>(i)];
    return std::tuple(costs.devices().region_of_node(place.node), place.kind, place.devices.size());
  };
  using set_name = std::vector<decltype(name(0))>;
  std::map<set_name, bool> seen;
  const auto attempt = [&](std::vector<int> machines) {
    set_name key;
    for (const int machine : machines)
      key.push_back(name(machine));
    std::sort(key.begin(), key.end());
    if (seen.emplace(std::move(key), true).second)
      solve(costs, machines, size, best);
  };
  // Three machines of a look are as many as a set can use.
  std::map<decltype(name(0)), int> looks;
  std::vector<int> some;
  for (int i = 0; i < static_cast<int>(all.size()); ++i)
    if (looks[name(i)]++ < 3)
      some.push_back(i);
  const auto count = some.size();
  for (const int i : some)
    attempt({i});
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = i + 1; j < count && seen.size() < 2000; ++j)
      attempt({some[i], some[j]});
  if (best.line.empty())
    for (std::size_t i = 0; i < count && seen.size() < 2300; ++i)
      for (std::size_t j = i + 1; j < count && seen.size() < 2300; ++j)
        for (std::size_t k = j + 1; k < count && seen.size() < 2300; ++k)
          attempt({some[i], some[j], some[k]});
}

} // namespace

std::optional<pipeline> least_latency_pipeline(const cost_model& costs, double prompt,
                                               double output) {
  const lengths size{prompt, output};
  std::vector<int> machines;
  for (int i = 0; i < static_cast<int>(costs.devices().machines().size()); ++i)
    machines.push_back(i);
  best_so_far best;
  if (machines.size() <= 12) {
    const auto whole = build(costs, machines, size);
    if (sequence_work(whole.problem) <= most_work)
      solve(costs, machines, size, best);
    else
      solve_small_sets(costs, size, best);
  } else {
    solve_small_sets(costs, size, best);
  }
  if (best.line.empty())
    return std::nullopt;
  return best.line;
}

} // namespace hexgen::scheduler
