#include "scheduler/engine/prefix_index.hpp"
#include "tests/catch.hpp"

#include <numeric>
#include <set>

using namespace hexgen::scheduler;

namespace {
std::vector<token> block_of(token first) {
  std::vector<token> t(kv_block_tokens);
  std::iota(t.begin(), t.end(), first);
  return t;
}
} // namespace

TEST_CASE("an indexed block is found after the same parent only") {
  prefix_index index({1, 2});
  const auto a = block_of(0), b = block_of(100);
  const auto after_a = index.insert(prefix_index::root, a, 7);
  index.insert(after_a, b, 8);
  const auto found = index.find(prefix_index::root, a);
  REQUIRE(found);
  CHECK(found->block == 7);
  CHECK(found->hash == after_a);
  CHECK(index.find(after_a, b)->block == 8);
  CHECK_FALSE(index.find(prefix_index::root, b));
  CHECK_FALSE(index.find(after_a, a));
}

TEST_CASE("the same content in a second block does not displace the first") {
  prefix_index index({1, 2});
  const auto a = block_of(0);
  const auto first = index.insert(prefix_index::root, a, 7);
  CHECK(index.insert(prefix_index::root, a, 9) == first);
  CHECK(index.find(prefix_index::root, a)->block == 7);
  CHECK(index.contains(7));
  CHECK_FALSE(index.contains(9));
}

TEST_CASE("the least recently parked block is evicted first and held ones never") {
  prefix_index index({1, 2});
  for (block_id b = 0; b < 3; ++b)
    index.insert(prefix_index::root, block_of(static_cast<token>(b) * 50), b);
  CHECK_FALSE(index.evict());
  index.park(2);
  index.park(0);
  index.unpark(2);
  index.park(1);
  index.park(2);
  CHECK(index.parked() == 3);
  CHECK(index.evict() == 0U);
  CHECK_FALSE(index.find(prefix_index::root, block_of(0)));
  CHECK(index.evict() == 1U);
  CHECK(index.evict() == 2U);
  CHECK_FALSE(index.evict());
}

TEST_CASE("chain hashes depend on the key, the parent and every token") {
  const hash_key key{11, 22};
  std::set<std::uint64_t> seen;
  auto tokens = block_of(3);
  seen.insert(chain_hash(key, 0, tokens));
  seen.insert(chain_hash({11, 23}, 0, tokens));
  seen.insert(chain_hash({12, 22}, 0, tokens));
  seen.insert(chain_hash(key, 1, tokens));
  for (auto& t : tokens) {
    ++t;
    seen.insert(chain_hash(key, 0, tokens));
    --t;
  }
  CHECK(seen.size() == 4 + kv_block_tokens);
}
