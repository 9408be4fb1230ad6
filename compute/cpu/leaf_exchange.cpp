#include "compute/cpu/leaf_exchange.hpp"

namespace hexgen::compute {

leaf_exchange::leaf_exchange(int total, const std::vector<leaf_range>& ranges, int rank)
    : rank_(static_cast<std::size_t>(rank)), first_plane_{0} {
  for (std::size_t r = 0; r < ranges.size(); ++r) {
    for (const auto& node : whole_nodes(total, ranges[r].begin, ranges[r].end)) {
      nodes_.push_back(node);
      if (r == rank_)
        own_.push_back({node.begin - ranges[r].begin, node.end - ranges[r].begin});
    }
    first_plane_.push_back(static_cast<int>(nodes_.size()));
  }
  additions_ = finishing_additions(total, nodes_);
}

void leaf_exchange::gather(collective& group, std::span<float> buffer,
                           std::size_t plane_floats) const {
  if (first_plane_.size() == 2)
    return; // alone
  std::vector<std::span<std::byte>> all;
  for (std::size_t r = 0; r + 1 < first_plane_.size(); ++r) {
    const auto begin = static_cast<std::size_t>(first_plane_[r]) * plane_floats;
    const auto end = static_cast<std::size_t>(first_plane_[r + 1]) * plane_floats;
    all.push_back(std::as_writable_bytes(buffer.subspan(begin, end - begin)));
  }
  group.all_gather(all[rank_], all);
}

} // namespace hexgen::compute
