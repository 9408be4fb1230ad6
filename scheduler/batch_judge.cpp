#include "scheduler/batch_judge.hpp"

#include <algorithm>
#include <limits>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

batch_judge::batch_judge(const calibrated_cost& costs, const config::workload& workload,
                         const search_setting& setting, std::size_t requests, std::uint64_t seed)
    : costs_(costs), workload_(workload), setting_(setting),
      stream_(make_stream(workload, requests, seed)) {}

double batch_judge::operator()(const std::vector<pipeline>& lines, double floor) const {
  if (lines.empty())
    return -infinity;
  const batch_setting run{setting_.rate, setting_.policy, setting_.base};
  if (setting_.goal == search_goal::capacity || setting_.goal == search_goal::replicas ||
      setting_.goal == search_goal::rate) {
    const double most = saturate(costs_, lines, workload_.kinds, stream_, run).requests_per_s;
    if (setting_.goal == search_goal::capacity)
      return most;
    if (setting_.goal == search_goal::replicas)
      return static_cast<double>(lines.size()) + most / (1 + most);
    // Most candidates are worse: one simulation at the rate to beat tells.
    const double reached =
        largest_batch_rate(costs_, lines, workload_.kinds, stream_, run, setting_.slo_scale,
                           setting_.share, most, std::max(floor * 1.002, 0.0));
    return reached > 0 || floor <= 0 ? reached : -infinity;
  }
  auto ratios = simulate_batches(costs_, lines, workload_.kinds, stream_, run).ratios;
  const double kept = attainment(ratios, setting_.slo_scale);
  const double scale = scale_for(ratios, setting_.share);
  if (setting_.goal == search_goal::scale)
    return -scale;
  // Beyond the target only the distance to the deadline tells plans apart.
  return kept >= setting_.share ? 1 + 1 / scale : kept - 1e-6 * std::min(scale, 1e4);
}

} // namespace hexgen::scheduler
