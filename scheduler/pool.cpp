#include "scheduler/pool.hpp"

#include <algorithm>
#include <charconv>
#include <map>

namespace hexgen::scheduler {

pool::pool(const config::cluster& source) {
  std::map<std::string, int> kind_index, region_index;
  for (const auto& node : source.nodes) {
    const int number = nodes();
    node_names_.push_back(node.name);
    node_index_.emplace(node.name, number);
    const auto [region, fresh] = region_index.emplace(node.region, regions());
    if (fresh)
      region_names_.push_back(node.region);
    region_of_.push_back(region->second);
    first_of_node_.push_back(devices());
    std::map<int, int> machine_here;
    for (const auto& group : node.devices) {
      if (group.count == 0)
        continue;
      const auto [kind, new_kind] = kind_index.emplace(group.kind, kinds());
      if (new_kind)
        kinds_.push_back(source.kinds.at(group.kind));
      const auto [place, new_machine] =
          machine_here.emplace(kind->second, static_cast<int>(machines_.size()));
      if (new_machine)
        machines_.push_back({number, kind->second, {}});
      for (int i = 0; i < group.count; ++i) {
        machines_[index(place->second)].devices.push_back(devices());
        machine_of_.push_back(place->second);
        kind_of_.push_back(kind->second);
        node_of_.push_back(number);
      }
    }
  }
  first_of_node_.push_back(devices());
  inside_mixed_ = source.intra_node;
  inside_region_ = source.intra_region;
  inside_.assign(kinds_.size(), source.intra_node);
  for (const auto& [kind, cost] : source.intra_node_by_kind)
    if (const auto found = kind_index.find(kind); found != kind_index.end())
      inside_[index(found->second)] = cost;
  between_regions_.resize(region_names_.size() * region_names_.size());
  for (const auto& link : source.inter_region) {
    const auto first = region_index.find(link.a), second = region_index.find(link.b);
    if (first == region_index.end() || second == region_index.end())
      continue; // a region whose nodes have all left
    const auto a = index(first->second), b = index(second->second);
    between_regions_[a * region_names_.size() + b] = link.cost;
    between_regions_[b * region_names_.size() + a] = link.cost;
  }
}

std::string pool::id(int device) const {
  const int node = node_of(device);
  std::string text = node_name(node);
  return text.append("/").append(std::to_string(device - first_of_node_[index(node)]));
}

int pool::find(const std::string& id) const {
  const auto slash = id.rfind('/');
  if (slash == std::string::npos)
    return -1;
  const auto node = node_index_.find(id.substr(0, slash));
  if (node == node_index_.end())
    return -1;
  int number = 0;
  const auto* end = id.data() + id.size();
  const auto [stopped, error] = std::from_chars(id.data() + slash + 1, end, number);
  const int first = first_of_node_[index(node->second)];
  const int count = first_of_node_[index(node->second) + 1] - first;
  if (error != std::errc() || stopped != end || number < 0 || number >= count)
    return -1;
  return first + number;
}

config::link pool::between(int device, int other) const {
  const int node = node_of(device);
  if (node != node_of(other))
    return between_nodes(node, node_of(other));
  return kind_of(device) == kind_of(other) ? inside(kind_of(device)) : inside_mixed_;
}

config::link pool::between_nodes(int node, int other) const {
  if (node == other)
    return inside_mixed_;
  const auto a = index(region_of_node(node)), b = index(region_of_node(other));
  return a == b ? inside_region_ : between_regions_[a * region_names_.size() + b];
}

} // namespace hexgen::scheduler
