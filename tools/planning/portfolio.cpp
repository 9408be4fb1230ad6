#include "tools/planning/portfolio.hpp"

#include "scheduler/plan_service.hpp"
#include "tools/planning/batched_search.hpp"

#include <algorithm>
#include <limits>

namespace hexgen::tools {

namespace {

constexpr std::size_t batched_requests = 3000; // a batched request costs as much as a thousand

} // namespace

arm::arm(std::string name, const input_flags& flags, const planning_inputs& inputs,
         std::size_t requests)
    : name_(std::move(name)), flags_(flags), inputs_(inputs),
      batched_(dynamic_cast<const scheduler::calibrated_cost*>(inputs.costs.get())),
      stream_(scheduler::make_stream(
          inputs.workload, batched_ != nullptr ? std::min(requests, batched_requests) : requests,
          flags.seed + 4242)) {}

std::vector<const scheduler::line_service*> arm::pointers(const judged& plan) {
  std::vector<const scheduler::line_service*> found;
  for (const auto& service : plan.services)
    found.push_back(&service);
  return found;
}

void arm::add(const std::vector<scheduler::pipeline>& lines) {
  if (lines.empty() || std::find(lines_.begin(), lines_.end(), lines) != lines_.end())
    return;
  judged plan;
  for (const auto& line : lines)
    plan.services.push_back(
        scheduler::service_of(*inputs_.costs, line, inputs_.workload.kinds, inputs_.occupancy));
  plan.capacity = batched_ != nullptr ? saturated(inputs_, lines, flags_.seed + 4243).requests_per_s
                                      : scheduler::capacity(pointers(plan), inputs_.workload.kinds);
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
    if (interrupted())
      return;
    scheduler::search_result found;
    if (batched_ != nullptr) {
      solve_flags how;
      how.seconds = seconds_each;
      how.progress = progress;
      auto made = search_batched(flags_, how, inputs_, setting, layouts);
      found = std::move(made.told);
      add(made.lines);
    } else {
      found = search_islands(*inputs_.costs, inputs_.workload, setting, layouts, 1, seconds_each,
                             progress);
      scheduler::layout_book book(*inputs_.costs, inputs_.workload.kinds, layouts);
      add(place_grouping(book, found.best));
    }
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

double arm::largest_rate(const scheduler::request_stream& stream, double scale,
                         double share) const {
  double best = 0;
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    if (plans_[i].capacity <= best)
      continue;
    best = std::max(
        best, batched_ != nullptr
                  ? scheduler::largest_batch_rate(*batched_, lines_[i], inputs_.workload.kinds,
                                                  stream, {1, inputs_.dispatch, inputs_.base},
                                                  scale, share, plans_[i].capacity, best)
                  : scheduler::largest_rate(pointers(plans_[i]), stream,
                                            {inputs_.dispatch, 1, inputs_.base}, scale, share,
                                            plans_[i].capacity));
  }
  return best;
}

double arm::smallest_scale(const scheduler::request_stream& stream, double rate,
                           double share) const {
  double best = std::numeric_limits<double>::infinity();
  std::vector<float> ratios;
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    if (batched_ != nullptr)
      ratios = scheduler::simulate_batches(*batched_, lines_[i], inputs_.workload.kinds, stream,
                                           {rate, inputs_.dispatch, inputs_.base})
                   .ratios;
    else
      scheduler::simulate(pointers(plans_[i]), stream, {inputs_.dispatch, rate, inputs_.base},
                          ratios);
    best = std::min(best, scheduler::scale_for(ratios, share));
  }
  return best;
}

double arm::capacity() const {
  double best = 0;
  for (const auto& plan : plans_)
    best = std::max(best, plan.capacity);
  return best;
}

double arm::mean_latency() const {
  // Alone: in calibrated mode no one shares its steps.
  const auto alone = batched_ != nullptr ? costs_for(flags_, inputs_, 0) : nullptr;
  const auto& costs = alone != nullptr ? *alone : *inputs_.costs;
  double best = std::numeric_limits<double>::infinity();
  for (const auto& lines : lines_)
    for (const auto& line : lines) {
      const auto service =
          scheduler::service_of(costs, line, inputs_.workload.kinds, inputs_.occupancy);
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
