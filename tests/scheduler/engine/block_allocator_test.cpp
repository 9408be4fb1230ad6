#include "scheduler/engine/block_allocator.hpp"
#include "tests/catch.hpp"

#include <set>

using hexgen::scheduler::block_allocator;

TEST_CASE("every block is given once and none beyond") {
  block_allocator a(5);
  std::set<std::uint32_t> given;
  for (int i = 0; i < 5; ++i)
    given.insert(a.allocate().value());
  CHECK(given.size() == 5);
  CHECK(*given.rbegin() == 4);
  CHECK_FALSE(a.allocate());
  CHECK(a.free() == 0);
}

TEST_CASE("a shared block stays until its last holder lets go") {
  block_allocator a(1);
  const auto b = a.allocate().value();
  a.add_holder(b);
  CHECK_FALSE(a.drop_holder(b));
  CHECK(a.holders(b) == 1);
  CHECK(a.drop_holder(b));
  CHECK(a.free() == 0); // its last holder decides what becomes of it
  a.recycle(b);
  CHECK(a.free() == 1);
}

TEST_CASE("a block named by a step in flight is not given out again before it returned") {
  block_allocator a(1);
  const auto b = a.allocate().value();
  a.named(b, 3);
  CHECK(a.drop_holder(b));
  a.recycle(b);
  CHECK_FALSE(a.allocate());
  a.returned(2);
  CHECK_FALSE(a.allocate());
  a.returned(3);
  CHECK(a.allocate() == b);
}
