#include "tools/planning/portfolio.hpp"

#include "scheduler/plan_service.hpp"

#include <algorithm>
#include <limits>

namespace hexgen::tools {

arm::arm(std::string name, const planning_inputs& inputs, std::size_t requests, std::uint64_t seed)
    : name_(std::move(name)), inputs_(inputs),
      stream_(scheduler::make_stream(inputs.workload, requests, seed)) {}

std::vector<const scheduler::line_service*> arm::pointers(const judged& plan) {
  std::vector<const scheduler::line_service*> found;
  for (const auto& service : plan.services)
    found.push_back(&service);
  return found;
}

void arm::add(const std::vector<scheduler::pipeline>& lines) {
  if (lines.empty())
    return;
  judged plan;
  for (const auto& line : lines)
    plan.services.push_back(
        scheduler::service_of(*inputs_.costs, line, inputs_.workload.kinds, inputs_.occupancy));
  plans_.push_back(std::move(plan));
  lines_.push_back(lines);
}

void arm::search(const std::vector<double>& scales, const std::vector<double>& rates,
                 scheduler::layout_rule rule, double seconds_each, bool progress) {
  auto layouts = layout_setting_for(inputs_);
  layouts.rule = rule;
  scheduler::search_setting setting;
  setting.policy = inputs_.dispatch;
  setting.base = inputs_.base;
  setting.epoch = 2500;
  setting.requests = 6000;
  setting.stagnation = 10'000;
  const auto run = [&] {
    const auto found = search_islands(inputs_, setting, layouts, 1, seconds_each, progress);
    add(place(inputs_, layouts, found.best));
    setting.extra_seeds.push_back(found.best);
    if (setting.extra_seeds.size() > 6)
      setting.extra_seeds.erase(setting.extra_seeds.begin());
  };
  setting.goal = scheduler::search_goal::capacity;
  run();
  setting.goal = scheduler::search_goal::rate;
  for (const double scale : scales) {
    setting.slo_scale = scale;
    run();
  }
  setting.goal = scheduler::search_goal::scale;
  for (const double rate : rates) {
    setting.rate = rate;
    run();
  }
}

double arm::largest_rate(double scale, double share) const {
  double best = 0;
  for (const auto& plan : plans_) {
    const auto lines = pointers(plan);
    const double most = scheduler::capacity(lines, inputs_.workload.kinds);
    if (most <= best)
      continue;
    best =
        std::max(best, scheduler::largest_rate(lines, stream_, {inputs_.dispatch, 1, inputs_.base},
                                               scale, share, most));
  }
  return best;
}

double arm::smallest_scale(double rate, double share) const {
  double best = std::numeric_limits<double>::infinity();
  std::vector<float> ratios;
  for (const auto& plan : plans_) {
    scheduler::simulate(pointers(plan), stream_, {inputs_.dispatch, rate, inputs_.base}, ratios);
    best = std::min(best, scheduler::scale_for(ratios, share));
  }
  return best;
}

double arm::capacity() const {
  double best = 0;
  for (const auto& plan : plans_)
    best = std::max(best, scheduler::capacity(pointers(plan), inputs_.workload.kinds));
  return best;
}

double arm::mean_latency() const {
  double best = std::numeric_limits<double>::infinity();
  for (const auto& plan : plans_)
    for (const auto& service : plan.services) {
      double mean = 0;
      for (std::size_t k = 0; k < inputs_.workload.kinds.size(); ++k)
        mean += inputs_.workload.kinds[k].share * static_cast<double>(service.latency[k]);
      best = std::min(best, mean);
    }
  return best;
}

std::size_t arm::most_replicas() const {
  std::size_t most = 0;
  for (const auto& plan : plans_)
    most = std::max(most, plan.services.size());
  return most;
}

} // namespace hexgen::tools
