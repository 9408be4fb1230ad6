// Many plans of one pool judged together: what a pool reaches at any rate and deadline.
#pragma once

#include "tools/planning/solve.hpp"

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace hexgen::tools {

/// Plans of one arm; each metric takes the best of them. Figures that Ctrl-C cut short are worth
/// nothing: ask interrupted() after them.
class arm {
public:
  /// Flags and inputs must outlive the arm; `requests` of a stream are simulated for each figure.
  arm(std::string name, const input_flags& flags, const planning_inputs& inputs,
      std::size_t requests);

  void add(const std::vector<scheduler::pipeline>& lines);
  /// The other's plans are also this one's, with figures no worse than it gives: a figure depends a
  /// little on where its bisection begins. The other is of the same inputs and outlives this.
  void include(const arm& other);
  /// Searches for capacity, at the given scales (for rate) and rates (for scale); `doing` is told
  /// of each search as it begins.
  void search(const std::vector<double>& scales, const std::vector<double>& rates,
              scheduler::layout_rule rule, double seconds_each, bool progress,
              const std::function<void(const std::string&)>& doing);
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool empty() const { return plans_.empty(); }
  /// At each scale the largest rate, and at each rate the smallest scale, that `share` keeps.
  [[nodiscard]] std::vector<double> largest_rates(const std::vector<double>& scales,
                                                  double share) const;
  [[nodiscard]] std::vector<double> smallest_scales(const std::vector<double>& rates,
                                                    double share) const;
  /// The same on another stream.
  [[nodiscard]] double largest_rate(const scheduler::request_stream& stream, double scale,
                                    double share) const;
  [[nodiscard]] double smallest_scale(const scheduler::request_stream& stream, double rate,
                                      double share) const;
  [[nodiscard]] double capacity() const;     // in calibrated mode of a saturated engine
  [[nodiscard]] double mean_latency() const; // of the quickest plan's quickest pipeline, alone
  [[nodiscard]] const planning_inputs& inputs() const { return inputs_; }

private:
  struct plan {
    std::vector<scheduler::pipeline> lines;
    std::vector<scheduler::line_service> services;
    mutable std::once_flag counted;
    mutable double capacity = 0;
    [[nodiscard]] std::vector<const scheduler::line_service*> pointers() const;
  };
  [[nodiscard]] double capacity_of(const plan& one) const;

  std::string name_;
  const input_flags& flags_;
  const planning_inputs& inputs_;
  const scheduler::calibrated_cost* batched_; // null in paper mode
  scheduler::request_stream stream_;
  std::vector<std::unique_ptr<plan>> plans_;
  std::vector<const arm*> included_;
};

} // namespace hexgen::tools
