// The one binary tree in which the partial sums of row-parallel products are added.
#pragma once

#include <utility>
#include <vector>

namespace hexgen::compute {

/// The leaves [begin, end). As a node of the tree over n leaves it is split after the largest power
/// of two below its size, so a node of m leaves has the same inner shape wherever it lies.
struct leaf_range {
  int begin = 0;
  int end = 0;
  bool operator==(const leaf_range&) const = default;
};

/// The fewest whole nodes of the tree over `total` leaves that make up [begin, end), in order.
/// A rank that holds these leaves sends one sum for each. Throws std::invalid_argument when the
/// range does not lie within [0, total).
[[nodiscard]] std::vector<leaf_range> whole_nodes(int total, int begin, int end);

/// How to finish the tree from sums of `nodes` (all ranks' whole_nodes in order, covering
/// [0, total)): the additions `sum[first] += sum[second]`, in order; the total ends in sum[0].
/// Throws std::invalid_argument when `nodes` are not such a cover.
[[nodiscard]] std::vector<std::pair<int, int>>
finishing_additions(int total, const std::vector<leaf_range>& nodes);

} // namespace hexgen::compute
