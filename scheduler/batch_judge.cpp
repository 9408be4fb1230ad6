#include "scheduler/batch_judge.hpp"

#include <algorithm>
#include <limits>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

batch_judge::batch_judge(const calibrated_cost& costs, const config::workload& workload,
                         const search_setting& setting, std::size_t requests, std::uint64_t seed)
    : costs_(costs), workload_(workload), setting_(setting), seed_(seed),
      stream_(make_stream(workload, requests, seed)) {}

double batch_judge::operator()(const std::vector<pipeline>& lines, double floor) const {
  if (lines.empty())
    return -infinity;
  const auto count = stream_.times.size();
  batch_setting run{setting_.rate, setting_.policy, setting_.base};
  if (setting_.goal == search_goal::capacity || setting_.goal == search_goal::replicas ||
      setting_.goal == search_goal::rate) {
    // Most candidates are worse: one simulation at the rate to beat tells, mostly before its end.
    const double to_beat = std::max(floor * 1.002, 0.0);
    if (setting_.goal == search_goal::rate && to_beat > 0) {
      run.rate = to_beat;
      if (!simulate_batches_within(costs_, lines, workload_.kinds, stream_, run, setting_.slo_scale,
                                   may_be_late(count, setting_.share)))
        return -infinity;
    }
    const auto enough = lines.size() * saturating_requests;
    const double most =
        count >= enough
            ? saturate(costs_, lines, workload_.kinds, stream_, run).requests_per_s
            : saturate(costs_, lines, workload_.kinds, make_stream(workload_, enough, seed_), run)
                  .requests_per_s;
    if (setting_.goal == search_goal::capacity)
      return most;
    if (setting_.goal == search_goal::replicas)
      return static_cast<double>(lines.size()) + most / (1 + most);
    const double reached = largest_batch_rate(costs_, lines, workload_.kinds, stream_, run,
                                              setting_.slo_scale, setting_.share, most, to_beat);
    return reached > 0 || floor <= 0 ? reached : -infinity;
  }
  const auto limit = hopeless_below(setting_, floor, count);
  auto made = simulate_batches_within(costs_, lines, workload_.kinds, stream_, run, limit.scale,
                                      limit.most_late);
  return made ? value_of(setting_, made->ratios) : -infinity;
}

} // namespace hexgen::scheduler
