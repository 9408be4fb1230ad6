// Judges groupings as the engine would serve them: calibrated times, the engine's own batching.
#pragma once

#include "scheduler/batch_simulator.hpp"
#include "scheduler/group_search.hpp"

namespace hexgen::scheduler {

/// The value of what the setting's goal asks for, as group_judge scales it, from an event
/// simulation in which step_batcher forms every step.
class batch_judge {
public:
  /// All must outlive the judge. `requests` of a stream of `seed` are simulated for each
  /// plan, more where saturating it takes more.
  batch_judge(const calibrated_cost& costs, const config::workload& workload,
              const search_setting& setting, std::size_t requests, std::uint64_t seed);

  /// Greater is better, -infinity for no lines and below `floor` where that saves time.
  [[nodiscard]] double operator()(const std::vector<pipeline>& lines, double floor) const;

private:
  const calibrated_cost& costs_;
  const config::workload& workload_;
  const search_setting& setting_;
  std::uint64_t seed_;
  request_stream stream_;
};

} // namespace hexgen::scheduler
