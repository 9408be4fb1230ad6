#include "scheduler/group_search.hpp"

#include "scheduler/baselines.hpp"
#include "scheduler/plan_service.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::size_t survivors = 4;

struct scored {
  grouping it;
  double value = -infinity;
};

/// Keeps the best few, each once.
class hall {
public:
  explicit hall(std::size_t size) : size_(size) {}
  /// True when it is the best so far.
  bool offer(const grouping& it, double value) {
    if (entries_.size() == size_ && value <= entries_.back().value)
      return false;
    for (const auto& known : entries_)
      if (known.value == value && known.it == it)
        return false;
    const auto at =
        std::upper_bound(entries_.begin(), entries_.end(), value,
                         [](double mine, const scored& other) { return mine > other.value; });
    const bool best = at == entries_.begin();
    entries_.insert(at, {it, value});
    if (entries_.size() > size_)
      entries_.pop_back();
    return best;
  }
  [[nodiscard]] const std::vector<scored>& entries() const { return entries_; }
  [[nodiscard]] double least() const {
    return entries_.size() < size_ ? -infinity : entries_.back().value;
  }
  void clear() { entries_.clear(); }

private:
  std::size_t size_;
  std::vector<scored> entries_;
};

/// By more than rounding; anything improves on nothing.
bool improves(double value, double on) {
  return on == -infinity ? value > on : value > on + 1e-9 * std::abs(on);
}

/// The ablation's mutation: one random device goes to one random group.
bool move_one(grouping& individual, random_source& random) {
  if (individual.genes.size() < 2)
    return false;
  const auto count = static_cast<std::uint32_t>(individual.genes.size());
  const auto from = random.below(count), to = random.below(count);
  if (from == to)
    return false;
  auto& source = individual.genes[from].group;
  auto& target = individual.genes[to].group;
  const auto at = random.below(static_cast<std::uint32_t>(source.size()));
  const int machine = source[at].machine;
  if (--source[at].count == 0)
    source.erase(source.begin() + at);
  const auto place = std::find_if(target.begin(), target.end(),
                                  [&](const group_part& part) { return part.machine == machine; });
  if (place != target.end())
    ++place->count;
  else
    target.push_back({machine, 1});
  std::sort(target.begin(), target.end());
  if (source.empty())
    individual.genes.erase(individual.genes.begin() + from);
  return true;
}

} // namespace

hopeless hopeless_below(const search_setting& setting, double floor, std::size_t count) {
  if (setting.goal == search_goal::scale)
    return {-floor, may_be_late(count, setting.share)};
  if (floor > 1) // all of the share keep the deadline; what the floor needs is to be beaten
    return {1 / (floor - 1), may_be_late(count, setting.share)};
  return {setting.slo_scale, floor > 0 ? may_be_late(count, floor) : count};
}

double value_of(const search_setting& setting, std::vector<float>& ratios) {
  const double kept = attainment(ratios, setting.slo_scale);
  const double scale = scale_for(ratios, setting.share);
  if (setting.goal == search_goal::scale)
    return -scale;
  // Beyond the target only the distance to the deadline tells plans apart.
  return kept >= setting.share ? 1 + 1 / scale : kept - 1e-6 * std::min(scale, 1e4);
}

group_judge::group_judge(layout_book& book, const config::workload& workload,
                         const search_setting& setting, std::size_t requests, std::uint64_t seed)
    : book_(book), setting_(setting), stream_(make_stream(workload, requests, seed)) {}

double group_judge::operator()(const grouping& individual, double floor) {
  const auto chosen = choose_layouts(book_, individual, setting_.most_replicas);
  std::vector<const line_service*> lines;
  for (const auto& one : chosen)
    lines.push_back(&one.layout->service);
  return (*this)(lines, floor);
}

double group_judge::operator()(const std::vector<const line_service*>& lines, double floor) {
  if (lines.empty())
    return -infinity;
  ++evaluations_;
  const double can = capacity(lines, book_.kinds());
  switch (setting_.goal) {
  case search_goal::capacity:
    return can;
  case search_goal::replicas:
    return static_cast<double>(lines.size()) + can / (1 + can);
  default:
    break;
  }
  const simulation run{setting_.policy, setting_.rate, setting_.base};
  const auto count = stream_.times.size();
  if (setting_.goal == search_goal::rate) {
    const auto late = may_be_late(count, setting_.share);
    // Most candidates are worse: one simulation at the rate to beat tells.
    auto at = run;
    at.rate = floor * 1.002;
    if (floor > 0 &&
        (can < at.rate || !simulate_within(lines, stream_, at, setting_.slo_scale, late, ratios_)))
      return -infinity;
    return largest_rate(lines, stream_, run, setting_.slo_scale, setting_.share, can);
  }
  const auto limit = hopeless_below(setting_, floor, count);
  if (!simulate_within(lines, stream_, run, limit.scale, limit.most_late, ratios_))
    return -infinity;
  return value_of(setting_, ratios_);
}

search_result search_groups(layout_book& book, const config::workload& workload,
                            const search_setting& setting) {
  search_result result;
  group_judge judge(book, workload, setting, setting.requests, setting.seed * 2 + 1);
  random_source random(setting.seed);
  hall parents(survivors), best(setting.ranked);
  // What is known to be good first: the others are then dropped sooner.
  auto seeds = setting.extra_seeds;
  for (auto& seed : seed_groupings(book))
    seeds.push_back(std::move(seed));
  double top = -infinity, epoch_top = -infinity;
  int idle = 0, epoch_idle = 0, judged = 0;
  // The closed form takes microseconds, so a look at the clock now and then is enough.
  const int patience = setting.judge ? 1 : 16;
  const auto offer = [&](const grouping& it) {
    const double value =
        setting.judge ? setting.judge(it, parents.least(), false) : judge(it, parents.least());
    judged += setting.judge ? 1 : 0;
    if (value == -infinity)
      return;
    parents.offer(it, value);
    best.offer(it, value);
    if (improves(value, epoch_top)) {
      epoch_top = value;
      epoch_idle = 0;
    }
    if (improves(value, top)) {
      top = value;
      idle = 0;
      if (setting.progress)
        setting.progress(result.iterations, value);
    }
  };
  const auto change = [&](grouping& it) {
    return setting.random_moves ? move_one(it, random)
                                : mutate(it, book, random, setting.across_regions);
  };
  bool stopped = false;
  for (const auto& seed : seeds) {
    offer(seed);
    if (setting.stop && setting.stop()) {
      stopped = true;
      break;
    }
  }
  result.ended = stopped ? "time" : "iterations";
  while (!stopped && !setting.seeds_only && result.iterations < setting.iterations &&
         !seeds.empty()) {
    ++result.iterations;
    if (top >= setting.enough) {
      result.ended = "nothing left to gain";
      break;
    }
    if (idle++ >= setting.stagnation) {
      result.ended = "stagnation";
      break;
    }
    if (setting.stop && result.iterations % patience == 0 && setting.stop()) {
      result.ended = "time";
      break;
    }
    grouping child;
    if (epoch_idle++ >= setting.epoch || parents.entries().empty()) {
      // Elsewhere: a seed or one of the best, shaken.
      const auto count = static_cast<std::uint32_t>(best.entries().size());
      child = count > 0 && random.below(2) == 0
                  ? best.entries()[random.below(count)].it
                  : seeds[random.below(static_cast<std::uint32_t>(seeds.size()))];
      for (std::uint32_t i = 0, steps = 4 + random.below(8); i < steps; ++i)
        change(child);
      parents.clear();
      epoch_top = -infinity;
      epoch_idle = 0;
      offer(child);
      continue;
    }
    const auto count = static_cast<std::uint32_t>(parents.entries().size());
    child = parents.entries()[random.below(count)].it;
    // Mostly one step; sometimes several, to leave where one step does not help.
    bool changed = false;
    for (std::uint32_t i = 0, steps = 1 + (random.below(4) == 0 ? random.below(3) : 0); i < steps;
         ++i)
      changed = change(child) || changed;
    if (changed)
      offer(child);
  }
  // A short stream flatters whoever fits it: rank the best and the seeds on a long fresh one.
  group_judge last(book, workload, setting, setting.final_requests, setting.seed * 2 + 1000);
  hall finals(setting.ranked);
  const auto rank = [&](const grouping& it) {
    const double found =
        setting.judge ? setting.judge(it, finals.least(), true) : last(it, finals.least());
    judged += setting.judge ? 1 : 0;
    if (found > -infinity)
      finals.offer(it, found);
  };
  const auto hurry = [&] {
    return !finals.entries().empty() && setting.stop_ranking && setting.stop_ranking();
  };
  for (const auto& entry : best.entries())
    if (!hurry())
      rank(entry.it);
  if (!setting.judge && setting.goal != search_goal::capacity &&
      setting.goal != search_goal::replicas)
    for (const auto& seed : seeds)
      if (!hurry())
        rank(seed);
  result.value = -infinity;
  for (const auto& entry : finals.entries())
    result.ranked.push_back(entry.it);
  if (!finals.entries().empty()) {
    result.best = finals.entries().front().it;
    result.value = finals.entries().front().value;
  }
  result.evaluations = judge.evaluations() + last.evaluations() + judged;
  return result;
}

std::vector<pipeline> or_baseline(layout_book& book, const config::workload& workload,
                                  const search_setting& setting, occupancy mode,
                                  std::vector<pipeline> lines) {
  group_judge judge(book, workload, setting, setting.final_requests, setting.seed * 2 + 2000);
  const auto value = [&](const std::vector<pipeline>& plan, double floor) {
    const auto services = services_of(book.costs(), plan, workload.kinds, mode);
    return judge(pointers_to(services), floor);
  };
  double best = value(lines, -infinity);
  for (auto& plan : baseline_plans(book.costs(), workload.kinds, mode)) {
    if (setting.most_replicas > 0 && plan.size() > static_cast<std::size_t>(setting.most_replicas))
      continue;
    if (const double found = value(plan, best); improves(found, best)) {
      best = found;
      lines = std::move(plan);
    }
  }
  return lines;
}

} // namespace hexgen::scheduler
