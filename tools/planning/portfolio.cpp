#include "tools/planning/portfolio.hpp"

#include "scheduler/plan_service.hpp"
#include "tools/planning/batched_search.hpp"
#include "tools/planning/in_parallel.hpp"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <numeric>

namespace hexgen::tools {

namespace {

constexpr std::size_t batched_requests = 6000; // a batched request costs as much as a thousand
constexpr std::size_t runners_up = 6;          // of each search's plans, kept beside its best
constexpr int batched_iterations = 2400;       // so that a busy machine changes nothing
constexpr int islands = 2;                     // threads, too

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

} // namespace

arm::arm(std::string name, const input_flags& flags, const planning_inputs& inputs,
         std::size_t requests)
    : name_(std::move(name)), flags_(flags), inputs_(inputs),
      batched_(dynamic_cast<const scheduler::calibrated_cost*>(inputs.costs.get())),
      stream_(scheduler::make_stream(
          inputs.workload, batched_ != nullptr ? std::min(requests, batched_requests) : requests,
          flags.seed + 4242)) {}

std::vector<const scheduler::line_service*> arm::plan::pointers() const {
  std::vector<const scheduler::line_service*> found;
  for (const auto& service : services)
    found.push_back(&service);
  return found;
}

void arm::add(const std::vector<scheduler::pipeline>& lines) {
  const bool known = std::any_of(plans_.begin(), plans_.end(),
                                 [&](const auto& other) { return other->lines == lines; });
  if (lines.empty() || known)
    return;
  auto made = std::make_unique<plan>();
  made->lines = lines;
  for (const auto& line : lines)
    made->services.push_back(
        scheduler::service_of(*inputs_.costs, line, inputs_.workload.kinds, inputs_.occupancy));
  plans_.push_back(std::move(made));
}

void arm::include(const arm& other) {
  included_.push_back(&other);
}

void arm::search(const std::vector<double>& scales, const std::vector<double>& rates,
                 scheduler::layout_rule rule, double seconds_each, bool progress,
                 const std::function<void(const std::string&)>& doing) {
  auto layouts = layout_setting_for(inputs_);
  layouts.rule = rule;
  scheduler::search_setting setting;
  setting.policy = inputs_.dispatch;
  setting.base = inputs_.base;
  setting.epoch = 2500;
  setting.requests = 6000;
  setting.stagnation = 10'000;
  const auto run = [&](const std::string& what) {
    if (interrupted())
      return;
    doing(name_ + ", " + what);
    scheduler::search_result found;
    if (batched_ != nullptr) {
      solve_flags how;
      how.seconds = seconds_each;
      how.progress = progress;
      how.iterations = batched_iterations;
      auto made = search_batched(flags_, how, inputs_, setting, layouts);
      found = std::move(made.told);
      add(made.lines);
    } else {
      found = search_islands(*inputs_.costs, inputs_.workload, setting, layouts, islands,
                             seconds_each, progress);
      // Streams tell near equals apart only when long: all of them stay, and figures decide.
      scheduler::layout_book book(*inputs_.costs, inputs_.workload.kinds, layouts);
      add(place_grouping(book, found.best));
      for (std::size_t i = 0; i < std::min(runners_up, found.ranked.size()); ++i)
        add(place_grouping(book, found.ranked[i]));
    }
    setting.extra_seeds.push_back(found.best);
    if (setting.extra_seeds.size() > 6)
      setting.extra_seeds.erase(setting.extra_seeds.begin());
  };
  setting.goal = scheduler::search_goal::capacity;
  run("for capacity");
  setting.goal = scheduler::search_goal::rate;
  for (const double scale : scales) {
    setting.slo_scale = scale;
    run("for the rate at scale " + short_number(scale));
  }
  setting.goal = scheduler::search_goal::scale;
  for (const double rate : rates) {
    setting.rate = rate;
    run("for the scale at " + short_number(rate) + " requests/s");
  }
}

std::vector<double> arm::largest_rates(const std::vector<double>& scales, double share) const {
  std::vector<double> found(scales.size());
  in_parallel(scales.size(), islands,
              [&](std::size_t i) { found[i] = largest_rate(stream_, scales[i], share); });
  return found;
}

std::vector<double> arm::smallest_scales(const std::vector<double>& rates, double share) const {
  std::vector<double> found(rates.size());
  in_parallel(rates.size(), islands,
              [&](std::size_t i) { found[i] = smallest_scale(stream_, rates[i], share); });
  return found;
}

double arm::largest_rate(const scheduler::request_stream& stream, double scale,
                         double share) const {
  double best = 0;
  for (const auto* other : included_)
    best = std::max(best, other->largest_rate(stream, scale, share));
  const auto late = scheduler::may_be_late(stream.times.size(), share);
  const auto& kinds = inputs_.workload.kinds;
  std::vector<float> ratios;
  for (const auto& one : plans_) {
    if (interrupted())
      break;
    // Most plans are worse than the best so far, which one simulation tells, mostly before its end.
    if (batched_ != nullptr) {
      const scheduler::batch_setting at{best, inputs_.dispatch, inputs_.base};
      if (best == 0 ||
          scheduler::simulate_batches_within(*batched_, one->lines, kinds, stream, at, scale, late))
        best =
            std::max(best, scheduler::largest_batch_rate(*batched_, one->lines, kinds, stream, at,
                                                         scale, share, capacity_of(*one), best));
      continue;
    }
    const auto lines = one->pointers();
    if (capacity_of(*one) <= best)
      continue;
    if (best == 0 ||
        scheduler::simulate_within(lines, stream, {inputs_.dispatch, best, inputs_.base}, scale,
                                   late, ratios))
      best =
          std::max(best, scheduler::largest_rate(lines, stream, {inputs_.dispatch, 1, inputs_.base},
                                                 scale, share, capacity_of(*one)));
  }
  return best;
}

double arm::smallest_scale(const scheduler::request_stream& stream, double rate,
                           double share) const {
  double best = std::numeric_limits<double>::infinity();
  for (const auto* other : included_)
    best = std::min(best, other->smallest_scale(stream, rate, share));
  const auto late = scheduler::may_be_late(stream.times.size(), share);
  std::vector<float> ratios;
  for (const auto& one : plans_) {
    if (interrupted())
      break;
    if (batched_ != nullptr) {
      auto made =
          scheduler::simulate_batches_within(*batched_, one->lines, inputs_.workload.kinds, stream,
                                             {rate, inputs_.dispatch, inputs_.base}, best, late);
      if (made)
        best = std::min(best, scheduler::scale_for(made->ratios, share));
    } else if (scheduler::simulate_within(one->pointers(), stream,
                                          {inputs_.dispatch, rate, inputs_.base}, best, late,
                                          ratios)) {
      best = std::min(best, scheduler::scale_for(ratios, share));
    }
  }
  return best;
}

double arm::capacity_of(const plan& one) const {
  std::call_once(one.counted, [&] {
    one.capacity = batched_ != nullptr
                       ? saturated(inputs_, one.lines, flags_.seed + 4243).requests_per_s
                       : scheduler::capacity(one.pointers(), inputs_.workload.kinds);
  });
  return one.capacity;
}

double arm::capacity() const {
  std::vector<double> found(plans_.size());
  in_parallel(plans_.size(), islands,
              [&](std::size_t i) { found[i] = interrupted() ? 0 : capacity_of(*plans_[i]); });
  double best = 0;
  for (const auto* other : included_)
    best = std::max(best, other->capacity());
  return std::accumulate(found.begin(), found.end(), best,
                         [](double a, double b) { return std::max(a, b); });
}

double arm::mean_latency() const {
  // Alone: in calibrated mode no one shares its steps.
  const auto alone = batched_ != nullptr ? costs_for(flags_, inputs_, 0) : nullptr;
  const auto& costs = alone != nullptr ? *alone : *inputs_.costs;
  double best = std::numeric_limits<double>::infinity();
  for (const auto* other : included_)
    best = std::min(best, other->mean_latency());
  for (const auto& one : plans_)
    for (const auto& line : one->lines) {
      const auto service =
          scheduler::service_of(costs, line, inputs_.workload.kinds, inputs_.occupancy);
      double mean = 0;
      for (std::size_t k = 0; k < inputs_.workload.kinds.size(); ++k)
        mean += inputs_.workload.kinds[k].share * static_cast<double>(service.latency[k]);
      best = std::min(best, mean);
    }
  return best;
}

} // namespace hexgen::tools
