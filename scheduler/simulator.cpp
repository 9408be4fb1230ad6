#include "scheduler/simulator.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

namespace hexgen::scheduler {

namespace {

/// Services by kind, pipelines side by side: the inner loop runs over neighbours in memory.
struct table {
  std::size_t lines, kinds;
  std::vector<double> latency, occupancy;

  explicit table(const std::vector<const line_service*>& from)
      : lines(from.size()), kinds(from.front()->latency.size()) {
    latency.resize(lines * kinds);
    occupancy.resize(lines * kinds);
    for (std::size_t k = 0; k < kinds; ++k)
      for (std::size_t p = 0; p < lines; ++p) {
        latency[k * lines + p] = static_cast<double>(from[p]->latency[k]);
        occupancy[k * lines + p] = static_cast<double>(from[p]->occupancy[k]);
      }
  }
};

/// When to give a simulation up.
struct limit {
  float scale = std::numeric_limits<float>::infinity();
  std::size_t most_late = 0;
};

bool run_earliest(const table& services, const request_stream& stream, double gap,
                  const std::vector<float>& base, const limit& give_up,
                  std::vector<float>& ratios) {
  std::vector<double> free(services.lines, 0.0);
  std::size_t late = 0;
  for (std::size_t i = 0; i < stream.times.size(); ++i) {
    const double now = stream.times[i] * gap;
    const auto kind = static_cast<std::size_t>(stream.kinds[i]);
    const double* latency = &services.latency[kind * services.lines];
    std::size_t best = 0;
    double finish = std::numeric_limits<double>::infinity();
    for (std::size_t p = 0; p < services.lines; ++p) {
      const double end = std::max(free[p], now) + latency[p];
      best = end < finish ? p : best;
      finish = std::min(end, finish);
    }
    free[best] = finish - latency[best] + services.occupancy[kind * services.lines + best];
    ratios[i] = static_cast<float>(finish - now) / base[kind];
    late += ratios[i] > give_up.scale ? 1 : 0;
    if (late > give_up.most_late)
      return false;
  }
  return true;
}

/// Shortest queue counts requests that have not left; round robin takes turns.
bool run_blind(const table& services, const request_stream& stream, double gap,
               const std::vector<float>& base, dispatch policy, const limit& give_up,
               std::vector<float>& ratios) {
  std::size_t late = 0;
  std::vector<double> free(services.lines, 0.0);
  std::vector<std::deque<double>> inside(services.lines);
  for (std::size_t i = 0; i < stream.times.size(); ++i) {
    const double now = stream.times[i] * gap;
    const auto kind = static_cast<std::size_t>(stream.kinds[i]);
    std::size_t best = i % services.lines;
    if (policy == dispatch::shortest_queue) {
      best = 0;
      for (std::size_t p = 0; p < services.lines; ++p) {
        while (!inside[p].empty() && inside[p].front() <= now)
          inside[p].pop_front();
        if (inside[p].size() < inside[best].size())
          best = p;
      }
    }
    const auto at = kind * services.lines + best;
    const double start = std::max(free[best], now), finish = start + services.latency[at];
    free[best] = start + services.occupancy[at];
    if (policy == dispatch::shortest_queue)
      inside[best].push_back(finish);
    ratios[i] = static_cast<float>(finish - now) / base[kind];
    late += ratios[i] > give_up.scale ? 1 : 0;
    if (late > give_up.most_late)
      return false;
  }
  return true;
}

bool run(const table& services, const request_stream& stream, const simulation& setting,
         const limit& give_up, std::vector<float>& ratios) {
  ratios.resize(stream.times.size());
  if (setting.policy == dispatch::earliest_finish)
    return run_earliest(services, stream, 1 / setting.rate, setting.base, give_up, ratios);
  return run_blind(services, stream, 1 / setting.rate, setting.base, setting.policy, give_up,
                   ratios);
}

} // namespace

void simulate(const std::vector<const line_service*>& lines, const request_stream& stream,
              const simulation& setting, std::vector<float>& ratios) {
  run(table(lines), stream, setting, {}, ratios);
}

bool simulate_within(const std::vector<const line_service*>& lines, const request_stream& stream,
                     const simulation& setting, double scale, std::size_t most_late,
                     std::vector<float>& ratios) {
  return run(table(lines), stream, setting, {static_cast<float>(scale), most_late}, ratios);
}

std::size_t may_be_late(std::size_t count, double share) {
  const double all = static_cast<double>(count);
  return count - static_cast<std::size_t>(std::clamp(std::ceil(share * all), 0.0, all));
}

double attainment(const std::vector<float>& ratios, double scale) {
  if (ratios.empty())
    return 1;
  const auto kept = std::count_if(ratios.begin(), ratios.end(),
                                  [&](float ratio) { return static_cast<double>(ratio) <= scale; });
  return static_cast<double>(kept) / static_cast<double>(ratios.size());
}

double scale_for(std::vector<float>& ratios, double share) {
  if (ratios.empty())
    return 0;
  const auto count = static_cast<double>(ratios.size());
  const auto rank =
      static_cast<std::size_t>(std::clamp(std::ceil(share * count) - 1, 0.0, count - 1));
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<std::ptrdiff_t>(rank),
                   ratios.end());
  return static_cast<double>(ratios[rank]);
}

double largest_rate(const std::vector<const line_service*>& lines, const request_stream& stream,
                    const simulation& setting, double scale, double share, double most) {
  const table services(lines);
  auto at = setting;
  std::vector<float> ratios;
  const auto most_late = may_be_late(stream.times.size(), share);
  const auto keeps = [&](double rate) {
    at.rate = rate;
    return run(services, stream, at, {static_cast<float>(scale), most_late}, ratios);
  };
  double low = 0, high = most;
  if (!keeps(most * 1e-3))
    return 0;
  low = most * 1e-3;
  while (high - low > 2e-3 * high) {
    const double middle = (low + high) / 2;
    (keeps(middle) ? low : high) = middle;
  }
  return low;
}

double capacity(const std::vector<const line_service*>& lines,
                const std::vector<config::request_kind>& kinds) {
  double total = 0;
  for (const auto* line : lines) {
    double mean = 0;
    for (std::size_t k = 0; k < kinds.size(); ++k)
      mean += kinds[k].share * static_cast<double>(line->occupancy[k]);
    total += mean > 0 ? 1 / mean : 0;
  }
  return total;
}

} // namespace hexgen::scheduler
