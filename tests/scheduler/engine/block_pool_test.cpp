#include "scheduler/engine/block_pool.hpp"
#include "tests/catch.hpp"

#include <numeric>

using namespace hexgen::scheduler;

namespace {
std::vector<token> prompt(std::size_t n) {
  std::vector<token> t(n);
  std::iota(t.begin(), t.end(), 5);
  return t;
}
} // namespace

TEST_CASE("published blocks outlive their sequence and are held again by a match") {
  block_pool pool(4, true, {1, 2});
  const auto tokens = prompt(40);
  const auto a = pool.allocate().value(), b = pool.allocate().value();
  const auto h = pool.publish(prefix_index::root, std::span(tokens).first(16), a, 1);
  pool.publish(h, std::span(tokens).subspan(16, 16), b, 1);
  pool.drop_holder(b);
  pool.drop_holder(a);
  CHECK(pool.available() == 4);
  const auto found = pool.match(tokens, 2);
  CHECK(found.blocks == std::vector<block_id>{a, b});
  CHECK(pool.available() == 2);
  CHECK(pool.holders(a) == 1);
}

TEST_CASE("unheld indexed blocks make room, the end of a chain before its beginning") {
  block_pool pool(2, true, {1, 2});
  const auto tokens = prompt(32);
  const auto a = pool.allocate().value(), b = pool.allocate().value();
  const auto h = pool.publish(prefix_index::root, std::span(tokens).first(16), a, 1);
  pool.publish(h, std::span(tokens).subspan(16, 16), b, 1);
  pool.drop_holder(b);
  pool.drop_holder(a);
  CHECK(pool.allocate() == b);
  CHECK(pool.match(tokens, 2).blocks == std::vector<block_id>{a});
}

TEST_CASE("an indexed block that a step in flight names is not evicted") {
  block_pool pool(1, true, {1, 2});
  const auto tokens = prompt(16);
  const auto a = pool.allocate().value();
  pool.publish(prefix_index::root, tokens, a, 1);
  pool.named(a, 1);
  pool.drop_holder(a);
  CHECK(pool.available() == 0);
  CHECK_FALSE(pool.allocate());
  pool.returned(1);
  CHECK(pool.allocate() == a);
}

TEST_CASE("without the prefix cache nothing is found") {
  block_pool pool(2, false, {1, 2});
  const auto tokens = prompt(16);
  const auto a = pool.allocate().value();
  pool.publish(prefix_index::root, tokens, a, 1);
  pool.drop_holder(a);
  CHECK(pool.match(tokens, 1).blocks.empty());
}
