// Random small clusters and models for comparisons against brute force.
#pragma once

#include "config/cluster.hpp"
#include "config/model_shape.hpp"

#include <random>
#include <string>

namespace hexgen::test {

/// Up to `devices` devices of three kinds on up to three nodes in up to two regions; some memory
/// tight, some region pairs unlinked.
inline config::cluster random_cluster(std::mt19937_64& random, int devices,
                                      const config::model_shape& model) {
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  config::cluster made;
  made.name = "random";
  const double layer = 12.0 * model.hidden * model.hidden * model.bytes_per_parameter;
  for (int k = 0; k < 3; ++k) {
    config::device_kind kind;
    kind.name = std::string(1, static_cast<char>('x' + k));
    kind.fp16_tflops = 10.0 * pick(2, 40);
    kind.bandwidth_gbs = 100.0 * pick(3, 20);
    const double layers = 0.5 + pick(0, 2 * model.layers) * 0.5;
    kind.memory_gib = layers * layer / (1024.0 * 1024 * 1024) + 0.05;
    made.kinds[kind.name] = kind;
  }
  const int nodes = pick(1, 3);
  for (int n = 0; n < nodes; ++n) {
    config::cluster_node node;
    node.name = std::string(1, static_cast<char>('a' + n));
    node.region = pick(0, 1) == 0 ? "r" : "s";
    made.nodes.push_back(node);
  }
  const int count = pick(1, devices);
  for (int i = 0; i < count; ++i) {
    auto& groups = made.nodes[static_cast<std::size_t>(pick(0, nodes - 1))].devices;
    groups.push_back({std::string(1, static_cast<char>('x' + pick(0, 2))), 1});
  }
  made.intra_node = {1e-6 * pick(1, 30), 1e9 * pick(8, 64)};
  if (pick(0, 3) == 0)
    made.intra_node_by_kind.emplace_back("x", config::link{2e-6, 3e11});
  if (pick(0, 9) > 0)
    made.intra_region = {1e-4 * pick(1, 30), 1.25e8 * pick(1, 40)};
  bool r = false, s = false;
  for (const auto& node : made.nodes)
    (node.region == "r" ? r : s) = true;
  if (r && s && pick(0, 4) > 0)
    made.inter_region.push_back({"r", "s", {1e-3 * pick(1, 100), 1.25e7 * pick(1, 100)}});
  return made;
}

inline config::model_shape random_model(std::mt19937_64& random, int layers) {
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  config::model_shape made;
  made.name = "random";
  made.architecture = "llama";
  made.layers = pick(1, layers);
  made.hidden = 512 * pick(1, 8);
  made.heads = 8;
  made.kv_heads = 8;
  made.ffn = made.hidden * 3;
  made.vocab = 32000;
  return made;
}

} // namespace hexgen::test
