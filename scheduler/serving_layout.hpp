// The fastest pipeline for every set of live devices.
#pragma once

#include "scheduler/serving_cost.hpp"
#include "scheduler/stage_sequence.hpp"

#include <cstdint>
#include <vector>

namespace hexgen::scheduler {

/// Devices of one node that are alike within a few per cent: which of them a stage takes does not
/// matter, only how many.
struct device_class {
  int node = 0;
  std::vector<std::size_t> members;
};

/// The pipelines of least request time, one for each count vector over the classes that can hold
/// the model using exactly those devices. With a goal of concurrency, of these the layers are
/// shared out evenly, whichever stage being the last one.
class serving_layout {
public:
  struct entry {
    std::uint32_t code = 0; // mixed radix over the classes' counts
    serving_replica replica;
  };

  /// `members` are indices of usable devices.
  serving_layout(const serving_costs& costs, std::vector<std::size_t> members);

  /// Steps that solve() takes; large clusters are cut into neighbourhoods below a limit.
  [[nodiscard]] double work() const;
  /// Sorted by code. Precondition: work() is affordable.
  [[nodiscard]] std::vector<entry> solve() const;

  [[nodiscard]] const std::vector<device_class>& classes() const { return classes_; }
  /// How many of each class the code takes.
  [[nodiscard]] std::vector<int> counts(std::uint32_t code) const;
  [[nodiscard]] double codes() const;

private:
  [[nodiscard]] serving_replica evened(const serving_replica& replica) const;
  void add_options(std::size_t begin, std::size_t end, stage_problem& problem,
                   std::vector<stage_split>& splits) const;

  const serving_costs& costs_;
  std::vector<device_class> classes_;
};

} // namespace hexgen::scheduler
