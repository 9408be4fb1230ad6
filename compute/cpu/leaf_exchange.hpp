// Sums over leaves that several ranks hold: each rank's whole subtrees, gathered and finished in
// the same tree on every rank.
#pragma once

#include "compute/collective.hpp"
#include "compute/cpu/kernels.hpp"
#include "compute/leaf_tree.hpp"

#include <span>
#include <utility>
#include <vector>

namespace hexgen::compute {

/// The plan of one kind of row-parallel product (attention output or FFN down).
class leaf_exchange {
public:
  /// `ranges`: the leaves of every rank, in rank order, covering [0, total).
  /// Throws std::invalid_argument when they do not.
  leaf_exchange(int total, const std::vector<leaf_range>& ranges, int rank);

  /// The subtree sums of all ranks; the buffer holds one [tokens][width] plane for each.
  [[nodiscard]] int planes() const { return static_cast<int>(nodes_.size()); }
  [[nodiscard]] int first_plane() const { return first_plane_[rank_]; }
  /// This rank's nodes as runs of its own leaves (from 0).
  [[nodiscard]] const std::vector<leaf_range>& own_nodes() const { return own_; }
  /// After it every plane of `buffer` is filled on every rank.
  void gather(collective& group, std::span<float> buffer, std::size_t plane_floats) const;
  /// sum[first] += sum[second], in order; the total ends in plane 0.
  [[nodiscard]] const std::vector<std::pair<int, int>>& additions() const { return additions_; }

private:
  std::size_t rank_;
  std::vector<leaf_range> nodes_;
  std::vector<leaf_range> own_;
  std::vector<int> first_plane_; // per rank, and the end
  std::vector<std::pair<int, int>> additions_;
};

} // namespace hexgen::compute
