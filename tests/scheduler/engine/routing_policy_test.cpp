#include "scheduler/engine/routing_policy.hpp"
#include "tests/catch.hpp"

#include <numeric>

using namespace hexgen::scheduler;

namespace {
std::vector<token> prompt(std::size_t n, token first) {
  std::vector<token> t(n);
  std::iota(t.begin(), t.end(), first);
  return t;
}
routing_candidate replica(std::uint64_t id, double capacity, std::uint64_t outstanding = 0) {
  routing_candidate c;
  c.replica = id;
  c.capacity = capacity;
  c.outstanding_tokens = outstanding;
  return c;
}
} // namespace

TEST_CASE("work is shared out in proportion to capacity") {
  routing_policy policy({});
  std::vector<routing_candidate> c{replica(1, 300), replica(2, 100)};
  std::vector<int> taken(2);
  for (int i = 0; i < 400; ++i) {
    const auto at = policy.pick(c, prompt(20, i * 100), 20).value();
    ++taken[at];
    c[at].outstanding_tokens += 40;
  }
  CHECK(taken[0] == Approx(300).margin(4));
}

TEST_CASE("a replica without KV headroom is passed over while another has some") {
  routing_policy policy({});
  std::vector<routing_candidate> c{replica(1, 1000), replica(2, 10)};
  c[0].kv_tokens = 1000;
  c[0].held_tokens = 990;
  c[1].kv_tokens = 1000;
  CHECK(policy.pick(c, prompt(20, 0), 20) == 1U);
  c[1].held_tokens = 990;
  CHECK(policy.pick(c, prompt(20, 0), 20) == 0U);
  CHECK_FALSE(policy.pick({}, prompt(20, 0), 20));
}

TEST_CASE("a known prefix goes home until home is too busy") {
  routing_policy policy({});
  std::vector<routing_candidate> c{replica(1, 100), replica(2, 100, 10)};
  const auto shared = prompt(64, 0);
  REQUIRE(policy.pick(c, shared, 10) == 0U);
  auto longer = shared;
  longer.push_back(99999);
  c[0].outstanding_tokens = 30; // a little busier than the other
  CHECK(policy.pick(c, longer, 10) == 0U);
  CHECK(policy.pick(c, prompt(64, 5000), 10) == 1U);
  c[0].outstanding_tokens = 3000;
  CHECK(policy.pick(c, longer, 10) == 1U);
}

TEST_CASE("a busier home is worth what it need not compute") {
  routing_options o;
  o.load_cap = 1;
  o.load_slack_s = 0;
  routing_policy policy(o);
  std::vector<routing_candidate> c{replica(1, 100), replica(2, 100, 10)};
  const auto known = prompt(640, 0);
  REQUIRE(policy.pick(c, known, 10) == 0U);
  c[0].outstanding_tokens = 640; // as busy with the request as the other
  CHECK(policy.pick(c, known, 10) == 0U);
  c[0].outstanding_tokens = 660;
  CHECK(policy.pick(c, known, 10) == 1U);
}

TEST_CASE("a forgotten replica attracts nothing") {
  routing_policy policy({});
  std::vector<routing_candidate> c{replica(1, 100), replica(2, 100, 10)};
  REQUIRE(policy.pick(c, prompt(64, 0), 10) == 0U);
  policy.forget(1);
  c[0].outstanding_tokens = 30;
  CHECK(policy.pick(c, prompt(64, 0), 10) == 1U);
}

TEST_CASE("the memory of prefixes is bounded") {
  routing_options o;
  o.remembered_prefixes = 8;
  routing_policy policy(o);
  std::vector<routing_candidate> c{replica(1, 100), replica(2, 100, 10)};
  REQUIRE(policy.pick(c, prompt(64, 0), 10) == 0U);
  for (int i = 1; i < 10; ++i)
    (void)policy.pick(c, prompt(64, i * 1000), 10);
  c[0].outstanding_tokens = 30;
  CHECK(policy.pick(c, prompt(64, 0), 10) == 1U); // long forgotten
}
