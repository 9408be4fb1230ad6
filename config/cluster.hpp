// A pool of machines: nodes, their devices, and the links between them.
#pragma once

#include "config/device_kind.hpp"

#include <string>
#include <vector>

namespace hexgen::config {

/// One way: latency in seconds, bandwidth in bytes per second.
struct link {
  double alpha_s = 0;
  double beta = 0;
  [[nodiscard]] bool usable() const { return beta > 0; }
};

struct device_group {
  std::string kind;
  int count = 0;
};

struct cluster_node {
  std::string name, region;
  std::vector<device_group> devices;
  double price_per_hour = 0; // dollars for the whole node; 0: the sum over its devices' kinds
};

struct region_link {
  std::string a, b; // both directions
  link cost;
};

struct cluster {
  std::string file;   // where it was read from, for messages
  int links_line = 0; // of it: where inter_region or, without it, the links begin
  std::string name;
  std::vector<cluster_node> nodes;
  link intra_node; // any pair of one node without an entry below
  std::vector<std::pair<std::string, link>> intra_node_by_kind;
  link intra_region; // not usable: nodes of one region cannot talk
  std::vector<region_link> inter_region;
  device_catalogue kinds; // the catalogue with this cluster's overrides

  [[nodiscard]] int device_count() const;
  [[nodiscard]] double price_per_hour() const;
};

/// Reads a cluster file against a device catalogue. Throws config_error naming file, line and key.
/// At most 65,536 devices.
[[nodiscard]] cluster read_cluster(const std::string& path, const device_catalogue& catalogue);
[[nodiscard]] cluster parse_cluster(const std::string& file, const std::string& text,
                                    const device_catalogue& catalogue);

} // namespace hexgen::config
