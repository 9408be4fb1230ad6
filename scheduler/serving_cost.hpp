// What a stage, a hop and a whole pipeline of the live cluster cost, from what agents measured.
#pragma once

#include "scheduler/serving_planner.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace hexgen::scheduler {

/// One way to share every layer of a stage among its devices. Times in microseconds.
struct stage_split {
  std::vector<std::size_t> devices;
  std::vector<double> speeds;      // what make_shards is given
  std::vector<double> layer_share; // of a layer's weights and time, per device; sums to 1
  std::vector<double> kv_share;    // of its KV heads
  std::vector<double> head_share;
  double decode_us = 0;  // one token through one layer, all-reduces included
  double prefill_us = 0; // the goal's prompt through one layer
  double head_us = 0;
  double request_us = 0; // prompt and every further token through one layer
};

/// The inputs of a planning call, indexed: node numbers, link tables, checked numbers.
/// Refers to the caller's devices, model and goal, which must outlive it.
class serving_costs {
public:
  /// Microseconds; infinity where two nodes have no link.
  [[nodiscard]] double hop_us(int from_node, int to_node, double bytes) const;
  /// What a request of the goal pays for one boundary: prompt once, then token by token.
  [[nodiscard]] double request_hop_us(int from_node, int to_node) const;
  [[nodiscard]] double decode_hop_us(int from_node, int to_node) const;
  /// The token's way back from the last stage, for the whole request and for one token.
  [[nodiscard]] double request_return_us(int from_node, int to_node) const;
  [[nodiscard]] double decode_return_us(int from_node, int to_node) const;

  /// The splits worth considering: by speed, even, by memory. Empty when there are more devices
  /// than KV heads.
  [[nodiscard]] std::vector<stage_split> splits(const std::vector<std::size_t>& devices) const;
  /// The split that the given speeds cause.
  [[nodiscard]] stage_split split_by(const std::vector<std::size_t>& devices,
                                     const std::vector<double>& speeds) const;
  /// What the device holds of the model.
  [[nodiscard]] const serving_sizes& sizes_of(std::size_t device) const;
  /// Layers that fit into every device's memory at the goal's KV; may exceed the model's.
  [[nodiscard]] int layer_cap(const std::vector<std::size_t>& devices, const stage_split& split,
                              bool first, bool last) const;
  /// Bytes that device `rank` of the stage holds.
  [[nodiscard]] double stage_bytes(const stage_split& split, std::size_t rank, int layers,
                                   bool first, bool last) const;
  /// What a stage of a pipeline of `stages` is busy with a request of the goal, of which
  /// `concurrency` are served at once and share decode steps.
  [[nodiscard]] double load_us(const stage_split& split, int layers, bool last,
                               std::size_t stages) const;
  /// Fills the replica's times from its stages. Infinite where a hop has no link.
  void price(serving_replica& replica) const;

  [[nodiscard]] bool usable(std::size_t device) const { return why_not_[device].empty(); }
  [[nodiscard]] const std::string& why_not(std::size_t device) const { return why_not_[device]; }
  [[nodiscard]] int node_of(std::size_t device) const { return node_of_[device]; }
  [[nodiscard]] int nodes() const { return static_cast<int>(nodes_.size()); }
  [[nodiscard]] const std::string& node_name(int node) const { return nodes_[node]; }
  [[nodiscard]] int further_tokens() const;
  /// Empty, or what is wrong with the model or the goal.
  [[nodiscard]] const std::string& bad_input() const { return bad_input_; }

  const std::vector<serving_device>& devices;
  const serving_model& model;
  const serving_goal& goal;

  serving_costs(const std::vector<serving_device>& devices, const std::vector<serving_link>& links,
                const serving_model& model, const serving_goal& goal);

private:
  struct link_cost {
    double latency_us, us_per_byte;
  };
  std::vector<std::string> nodes_;
  std::vector<int> node_of_;
  std::vector<std::string> why_not_;
  std::vector<link_cost> links_; // nodes × nodes
  std::string bad_input_;
};

/// `count` whole leaves in proportion to `speeds`, at least `least` each: largest remainders.
[[nodiscard]] std::vector<int> share_leaves(int count, const std::vector<double>& speeds,
                                            int least);

} // namespace hexgen::scheduler
