// A cluster flattened for planning: devices by number, nodes, and the link between any two.
#pragma once

#include "config/cluster.hpp"

#include <string>
#include <unordered_map>
#include <vector>

namespace hexgen::scheduler {

/// Devices of one kind in one node: all that a stage is made of, since which of them does not
/// matter.
struct machine {
  int node = 0;
  int kind = 0;
  std::vector<int> devices;
};

class pool {
public:
  explicit pool(const config::cluster& source);

  [[nodiscard]] int devices() const { return static_cast<int>(node_of_.size()); }
  [[nodiscard]] int nodes() const { return static_cast<int>(node_names_.size()); }
  [[nodiscard]] int regions() const { return static_cast<int>(region_names_.size()); }
  [[nodiscard]] int node_of(int device) const { return node_of_[index(device)]; }
  [[nodiscard]] int kind_of(int device) const { return kind_of_[index(device)]; }
  [[nodiscard]] int region_of_node(int node) const { return region_of_[index(node)]; }
  [[nodiscard]] const config::device_kind& kind(int kind) const { return kinds_[index(kind)]; }
  [[nodiscard]] int kinds() const { return static_cast<int>(kinds_.size()); }
  [[nodiscard]] const std::string& node_name(int node) const { return node_names_[index(node)]; }
  [[nodiscard]] const std::string& region_name(int region) const {
    return region_names_[index(region)];
  }
  [[nodiscard]] const std::vector<machine>& machines() const { return machines_; }
  /// Index into machines().
  [[nodiscard]] int machine_of(int device) const { return machine_of_[index(device)]; }

  /// `node/index`, counted over all kinds of the node in file order.
  [[nodiscard]] std::string id(int device) const;
  /// -1 when unknown.
  [[nodiscard]] int find(const std::string& id) const;

  /// Not usable() where the cluster names no link.
  [[nodiscard]] config::link between(int device, int other) const;
  [[nodiscard]] config::link between_nodes(int node, int other) const;
  /// Inside one node, for devices of one kind.
  [[nodiscard]] config::link inside(int kind) const { return inside_[index(kind)]; }

private:
  [[nodiscard]] static std::size_t index(int value) { return static_cast<std::size_t>(value); }

  std::vector<int> node_of_, kind_of_, machine_of_, region_of_, first_of_node_;
  std::vector<std::string> node_names_, region_names_;
  std::vector<config::device_kind> kinds_;
  std::vector<machine> machines_;
  std::vector<config::link> inside_; // by kind
  config::link inside_mixed_, inside_region_;
  std::vector<config::link> between_regions_; // regions × regions
  std::unordered_map<std::string, int> node_index_;
};

} // namespace hexgen::scheduler
