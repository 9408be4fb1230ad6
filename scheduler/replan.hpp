// From a running plan and a changed cluster to the next plan: what to repair at once, what to
// refine, who loads which layers, and whether that pays.
#pragma once

#include "scheduler/group_search.hpp"
#include "scheduler/placement.hpp"

#include <string>
#include <vector>

namespace hexgen::scheduler {

/// A device must load layers that it does not hold.
struct shard_move {
  int device = 0; // in the new pool
  int first_layer = 0;
  int layers = 0;
  double bytes = 0;
};

/// A running pipeline by device ids, since numbers change with the pool.
struct running_stage {
  std::vector<std::string> devices;
  int first_layer = 0, layers = 0;
};
using running_pipeline = std::vector<running_stage>;

[[nodiscard]] std::vector<running_pipeline> name_devices(const pool& pool,
                                                         const std::vector<pipeline>& lines);

struct carried {
  std::vector<pipeline> intact; // every device and link of them is still there
  std::size_t broken = 0;
};
[[nodiscard]] carried carry_over(const cost_model& costs,
                                 const std::vector<running_pipeline>& running);

/// The group of a pipeline's devices.
[[nodiscard]] device_group group_of(const pool& pool, const pipeline& line);

/// Local repair: intact pipelines stay as they are; free devices (of broken pipelines, idle, new)
/// are laid out anew in the way that serves best beside them. Milliseconds.
[[nodiscard]] std::vector<pipeline> repair(layout_book& book, const config::workload& workload,
                                           const search_setting& setting,
                                           const std::vector<pipeline>& intact);

/// The pipelines as a starting point for a search that refines the repaired plan.
[[nodiscard]] grouping as_seed(const pool& pool, const std::vector<pipeline>& lines);

/// Layers of the new pipelines that their devices do not hold already at the same share (same
/// degree and rank of a stage that had the layer).
[[nodiscard]] std::vector<shard_move> moves_to(const cost_model& costs,
                                               const std::vector<running_pipeline>& running,
                                               const std::vector<pipeline>& next);

/// Seconds until the slowest device has loaded, at `bytes_per_s` each.
[[nodiscard]] double reload_seconds(const std::vector<shard_move>& moves, double bytes_per_s);

/// (new - old rate) × (window - reload) > old rate × reload: what is gained until the next change
/// against what is lost while loading.
[[nodiscard]] bool switching_pays(double old_rate, double new_rate, double window_s,
                                  double reload_s);

} // namespace hexgen::scheduler
