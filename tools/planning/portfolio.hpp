// Many plans of one pool judged together: what a pool reaches at any rate and deadline.
#pragma once

#include "tools/planning/solve.hpp"

#include <string>
#include <vector>

namespace hexgen::tools {

/// Plans of one arm; each metric takes the best of them.
class arm {
public:
  arm(std::string name, const planning_inputs& inputs, std::size_t requests, std::uint64_t seed);

  void add(const std::vector<scheduler::pipeline>& lines);
  /// Searches at the given scales (for rate) and rates (for scale) and for capacity.
  void search(const std::vector<double>& scales, const std::vector<double>& rates,
              scheduler::layout_rule rule, double seconds_each, bool progress);
  /// Searches that begin with random moves or stay at the seeds.
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool empty() const { return plans_.empty(); }
  [[nodiscard]] double largest_rate(double scale, double share) const;
  [[nodiscard]] double smallest_scale(double rate, double share) const;
  [[nodiscard]] double capacity() const;
  [[nodiscard]] double mean_latency() const; // of the quickest plan's quickest pipeline
  [[nodiscard]] std::size_t most_replicas() const;
  [[nodiscard]] const planning_inputs& inputs() const { return inputs_; }
  [[nodiscard]] const std::vector<std::vector<scheduler::pipeline>>& plans() const {
    return lines_;
  }

private:
  struct judged {
    std::vector<scheduler::line_service> services;
  };
  [[nodiscard]] static std::vector<const scheduler::line_service*> pointers(const judged& plan);

  std::string name_;
  const planning_inputs& inputs_;
  scheduler::request_stream stream_;
  std::vector<judged> plans_;
  std::vector<std::vector<scheduler::pipeline>> lines_;
};

} // namespace hexgen::tools
