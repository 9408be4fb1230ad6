#include "compute/leaf_tree.hpp"

#include <bit>
#include <stdexcept>

namespace hexgen::compute {

namespace {

int split(leaf_range node) {
  const auto leaves = static_cast<unsigned>(node.end - node.begin);
  return node.begin + static_cast<int>(std::bit_floor(leaves - 1));
}

void collect(leaf_range node, leaf_range wanted, std::vector<leaf_range>& out) {
  if (node.end <= wanted.begin || wanted.end <= node.begin)
    return;
  if (wanted.begin <= node.begin && node.end <= wanted.end) {
    out.push_back(node);
    return;
  }
  const int middle = split(node);
  collect({node.begin, middle}, wanted, out);
  collect({middle, node.end}, wanted, out);
}

/// Adds up `node`, whose sums start at nodes[next]; returns the index that holds its sum.
int finish(leaf_range node, const std::vector<leaf_range>& nodes, std::size_t& next,
           std::vector<std::pair<int, int>>& additions) {
  if (next >= nodes.size() || nodes[next].begin != node.begin || nodes[next].end > node.end ||
      nodes[next].end <= node.begin)
    throw std::invalid_argument("leaf tree: the ranks' sums do not cover the leaves");
  if (nodes[next] == node)
    return static_cast<int>(next++);
  const int middle = split(node);
  const int left = finish({node.begin, middle}, nodes, next, additions);
  const int right = finish({middle, node.end}, nodes, next, additions);
  additions.emplace_back(left, right);
  return left;
}

} // namespace

std::vector<leaf_range> whole_nodes(int total, int begin, int end) {
  if (begin < 0 || begin > end || end > total)
    throw std::invalid_argument("leaf tree: leaves out of range");
  std::vector<leaf_range> out;
  if (begin < end)
    collect({0, total}, {begin, end}, out);
  return out;
}

std::vector<std::pair<int, int>> finishing_additions(int total,
                                                     const std::vector<leaf_range>& nodes) {
  std::vector<std::pair<int, int>> additions;
  std::size_t next = 0;
  if (total > 0)
    finish({0, total}, nodes, next, additions);
  if (next != nodes.size())
    throw std::invalid_argument("leaf tree: more sums than leaves");
  return additions;
}

} // namespace hexgen::compute
