// Many plans of one pool judged together: what a pool reaches at any rate and deadline.
#pragma once

#include "tools/planning/solve.hpp"

#include <string>
#include <vector>

namespace hexgen::tools {

/// Plans of one arm; each metric takes the best of them.
class arm {
public:
  /// Flags and inputs must outlive the arm; `requests` of a stream are simulated for each figure.
  arm(std::string name, const input_flags& flags, const planning_inputs& inputs,
      std::size_t requests);

  void add(const std::vector<scheduler::pipeline>& lines);
  /// Searches at the given scales (for rate) and rates (for scale) and for capacity.
  void search(const std::vector<double>& scales, const std::vector<double>& rates,
              scheduler::layout_rule rule, double seconds_each, bool progress);
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool empty() const { return plans_.empty(); }
  [[nodiscard]] double largest_rate(double scale, double share) const {
    return largest_rate(stream_, scale, share);
  }
  [[nodiscard]] double smallest_scale(double rate, double share) const {
    return smallest_scale(stream_, rate, share);
  }
  /// The same on another stream.
  [[nodiscard]] double largest_rate(const scheduler::request_stream& stream, double scale,
                                    double share) const;
  [[nodiscard]] double smallest_scale(const scheduler::request_stream& stream, double rate,
                                      double share) const;
  [[nodiscard]] double capacity() const;     // in calibrated mode of a saturated engine
  [[nodiscard]] double mean_latency() const; // of the quickest plan's quickest pipeline, alone
  [[nodiscard]] std::size_t most_replicas() const;
  [[nodiscard]] const planning_inputs& inputs() const { return inputs_; }
  [[nodiscard]] const std::vector<std::vector<scheduler::pipeline>>& plans() const {
    return lines_;
  }

private:
  struct judged {
    std::vector<scheduler::line_service> services;
    double capacity = 0;
  };
  [[nodiscard]] static std::vector<const scheduler::line_service*> pointers(const judged& plan);

  std::string name_;
  const input_flags& flags_;
  const planning_inputs& inputs_;
  const scheduler::calibrated_cost* batched_; // null in paper mode
  scheduler::request_stream stream_;
  std::vector<judged> plans_;
  std::vector<std::vector<scheduler::pipeline>> lines_;
};

} // namespace hexgen::tools
