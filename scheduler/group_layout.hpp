// How one group of devices is best laid out as a pipeline, for every trade between the latency of
// a request and the rate it can take.
#pragma once

#include "scheduler/cost_model.hpp"
#include "scheduler/simulator.hpp"

#include <map>
#include <memory>
#include <vector>

namespace hexgen::scheduler {

/// `count` devices of one machine.
struct group_part {
  int machine = 0;
  int count = 0;
  bool operator==(const group_part&) const = default;
  auto operator<=>(const group_part&) const = default;
};

/// Devices that form one pipeline: parts of different machines, sorted by machine.
using device_group = std::vector<group_part>;

struct laid_stage {
  int slot = 0; // index into the group's parts
  int degree = 0;
  int layers = 0;
};

struct group_layout {
  std::vector<laid_stage> stages;
  double latency_s = 0;    // of the mean request alone
  double bottleneck_s = 0; // its slowest stage
  line_service service;    // slots stand for the parts that it was computed for and all alike
};

/// Which layouts are allowed: all, or one degree and even layers inside each pipeline.
enum class layout_rule { free, even };

struct layout_setting {
  occupancy mode = occupancy::max_stage;
  layout_rule rule = layout_rule::free;
  std::size_t keep = 7; // layouts a group
  std::size_t most_stages = 1024;
  std::size_t most_mixes = 3000; // combinations of degrees tried before machines are thinned
  bool every_cap = false;        // all bottleneck bounds, not four: for small models
};

/// Computes layouts and remembers them by what the group looks like: machines of one kind and
/// region are interchangeable. Not for two threads at once.
class layout_book {
public:
  /// Both must outlive the book. Lengths are the workload's kinds.
  layout_book(const cost_model& costs, const std::vector<config::request_kind>& kinds,
              const layout_setting& setting);

  /// The layouts of a group: rising latency, falling bottleneck, empty where infeasible.
  /// The pointer stays valid as long as the book.
  struct answer {
    const std::vector<group_layout>* layouts = nullptr;
    std::vector<int> slots; // slot -> index into the group
  };
  [[nodiscard]] answer layouts(const device_group& group);

  /// Layers that the devices could hold at most; a group below the model's is infeasible.
  [[nodiscard]] double layer_room(const device_group& group) const;
  [[nodiscard]] const cost_model& costs() const { return costs_; }
  [[nodiscard]] const std::vector<config::request_kind>& kinds() const { return kinds_; }
  /// Layouts computed, not looked up.
  [[nodiscard]] std::size_t computed() const { return known_.size(); }

private:
  struct unit {                // a stage of one kind and degree
    double per_layer = 0;      // seconds of the mean request
    double busy_per_layer = 0; // and what it takes of the stage
    double as_last = 0, busy_as_last = 0;
    int cap_middle = 0, cap_first = 0, cap_last = 0, cap_only = 0;
    std::vector<double> kind_per_layer, kind_as_last, kind_busy, kind_busy_as_last;
  };
  struct placed {
    int slot, degree;
    const unit* what;
  };
  class builder;

  [[nodiscard]] const unit& unit_of(int kind, int degree) const;
  [[nodiscard]] double mean_hop(int machine, int other) const;
  [[nodiscard]] double kind_hop(int machine, int other, std::size_t kind) const;
  [[nodiscard]] std::vector<int> chain(const device_group& group) const;
  [[nodiscard]] std::vector<group_layout> compute(const device_group& group) const;
  void fill_service(const device_group& group, group_layout& layout) const;

  const cost_model& costs_;
  std::vector<config::request_kind> kinds_;
  layout_setting setting_;
  std::vector<std::vector<unit>> units_; // [kind][index into degrees()]
  std::vector<double> room_;             // layers a device, by kind
  std::map<std::vector<int>, std::unique_ptr<std::vector<group_layout>>> known_;
};

/// The pipeline with device numbers; `taken` counts devices already used per machine.
[[nodiscard]] pipeline place_layout(const pool& pool, const device_group& group,
                                    const std::vector<int>& slots, const group_layout& layout,
                                    std::vector<int>& taken);

} // namespace hexgen::scheduler
