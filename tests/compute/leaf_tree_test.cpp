#include "compute/leaf_tree.hpp"
#include "tests/catch.hpp"

#include <stdexcept>
#include <string>

namespace hexgen::compute {

namespace {

/// The tree as text: how the sums of `cuts` (rank borders) end up being added.
std::string shape(int total, const std::vector<int>& cuts) {
  std::vector<leaf_range> nodes;
  for (std::size_t r = 0; r + 1 < cuts.size(); ++r)
    for (const auto& n : whole_nodes(total, cuts[r], cuts[r + 1]))
      nodes.push_back(n);
  // Each rank's own sums have the tree's shape inside: write them as the tree of one rank would.
  std::vector<std::string> sums;
  for (const auto& n : nodes) {
    std::vector<leaf_range> leaves;
    for (int i = 0; i < n.end - n.begin; ++i)
      leaves.push_back({i, i + 1});
    std::vector<std::string> texts;
    for (int i = n.begin; i < n.end; ++i)
      texts.push_back(std::to_string(i));
    for (const auto& [to, from] : finishing_additions(n.end - n.begin, leaves))
      texts[static_cast<std::size_t>(to)] = "(" + texts[static_cast<std::size_t>(to)] + "+" +
                                            texts[static_cast<std::size_t>(from)] + ")";
    sums.push_back(texts[0]);
  }
  for (const auto& [to, from] : finishing_additions(total, nodes))
    sums[static_cast<std::size_t>(to)] =
        "(" + sums[static_cast<std::size_t>(to)] + "+" + sums[static_cast<std::size_t>(from)] + ")";
  return sums[0];
}

} // namespace

TEST_CASE("the tree splits after the largest power of two", "[leaf_tree]") {
  CHECK(shape(3, {0, 3}) == "((0+1)+2)");
  CHECK(shape(6, {0, 6}) == "(((0+1)+(2+3))+(4+5))");
  CHECK(shape(7, {0, 7}) == "(((0+1)+(2+3))+((4+5)+6))");
}

TEST_CASE("however the leaves are shared out, the additions are the same", "[leaf_tree]") {
  for (int total = 1; total <= 16; ++total) {
    const auto alone = shape(total, {0, total});
    for (int a = 0; a <= total; ++a)
      for (int b = a; b <= total; ++b)
        CHECK(shape(total, {0, a, b, total}) == alone);
  }
}

TEST_CASE("a rank sends few sums", "[leaf_tree]") {
  CHECK(whole_nodes(6, 0, 6) == std::vector<leaf_range>{{0, 6}});
  CHECK(whole_nodes(6, 1, 6) == std::vector<leaf_range>{{1, 2}, {2, 4}, {4, 6}});
  CHECK(whole_nodes(6, 2, 2).empty());
}

TEST_CASE("sums that do not cover the leaves are refused", "[leaf_tree]") {
  CHECK_THROWS_AS(whole_nodes(4, 2, 5), std::invalid_argument);
  CHECK_THROWS_AS(finishing_additions(4, {{0, 2}}), std::invalid_argument);
  CHECK_THROWS_AS(finishing_additions(4, {{0, 2}, {2, 4}, {4, 5}}), std::invalid_argument);
  CHECK_THROWS_AS(finishing_additions(4, {{0, 3}, {3, 4}}), std::invalid_argument);
}

} // namespace hexgen::compute
