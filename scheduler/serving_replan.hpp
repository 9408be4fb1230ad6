// The live cluster's next plan after a device or link changed.
#pragma once

#include "scheduler/serving_planner.hpp"

#include <string>
#include <vector>

namespace hexgen::scheduler {

/// A device must load layers that it does not hold at the same share.
struct serving_move {
  std::size_t device = 0; // index into the new device list
  int first_layer = 0;
  int layers = 0;
  std::uint64_t bytes = 0;
  double seconds = 0;
};

struct serving_replan_goal {
  serving_goal plan;
  double window_s = 300; // how long a plan is expected to last
  double load_gbs = 0.5; // 10^9 byte/s that a device loads with
};

struct serving_change {
  serving_plan plan;
  std::vector<serving_move> moves;
  /// For every replica of `plan`: the old plan's replica with the same placement, or -1. Those keep
  /// their generation and do not reload.
  std::vector<int> kept;
  double reload_s = 0; // until the slowest device has loaded
  bool pays = false;   // against staying with what runs
  std::string why;     // one sentence
};

/// Two answers at once. `repair`: replicas whose devices are all there stay, the free devices are
/// planned anew; to be carried out at once when the old plan lost a replica. `refined`: the best
/// plan for the whole cluster; `pays` says whether to switch to it from the repaired plan.
struct serving_replan {
  serving_change repair, refined;
};

/// `old_plan` refers to `old_devices`; devices are the same when node and index are. A draining
/// device counts as gone. Pure: equal inputs, equal answers.
[[nodiscard]] serving_replan
replan_serving(const std::vector<serving_device>& old_devices, const serving_plan& old_plan,
               const std::vector<serving_device>& devices, const std::vector<serving_link>& links,
               const serving_model& model, const serving_replan_goal& goal);

} // namespace hexgen::scheduler
