#include "actors/core/journal.hpp"
#include "tests/catch.hpp"

using namespace hexgen::actors;

namespace {
wire::token_chunk chunk(std::uint32_t attempt, int index, std::vector<int> ids) {
  wire::token_chunk c;
  c.request = 9;
  c.attempt = attempt;
  c.index = index;
  for (const int id : ids) {
    wire::sampled s;
    s.index = index++;
    s.token.id = id;
    c.tokens.push_back(s);
  }
  return c;
}
} // namespace

TEST_CASE("tokens enter the journal once and in order") {
  journal j(9, {1, 2}, {});
  CHECK(j.take(chunk(0, 0, {5, 6})) == journal::verdict::taken);
  CHECK(j.take(chunk(0, 0, {5})) == journal::verdict::gap);
  CHECK(j.take(chunk(0, 3, {8})) == journal::verdict::gap);
  CHECK(j.take(chunk(0, 2, {})) == journal::verdict::gap);
  auto skewed = chunk(0, 2, {7, 8});
  skewed.tokens[1].index = 5;
  CHECK(j.take(skewed) == journal::verdict::gap);
  CHECK(j.take(chunk(0, 2, {7})) == journal::verdict::taken);
  CHECK(std::vector<int>(j.emitted().begin(), j.emitted().end()) == std::vector<int>{5, 6, 7});
}

TEST_CASE("tokens of an attempt that was given up are stale") {
  journal j(9, {1, 2}, {});
  REQUIRE(j.take(chunk(0, 0, {5})) == journal::verdict::taken);
  j.next_attempt();
  CHECK(j.take(chunk(0, 1, {6})) == journal::verdict::stale);
  CHECK(j.take(chunk(2, 1, {6})) == journal::verdict::stale);
  CHECK(j.take(chunk(1, 1, {6})) == journal::verdict::taken);
}

TEST_CASE("a resumption carries prompt, emitted tokens and the new attempt") {
  hexgen::compute::sampling_params p;
  p.seed = 42;
  journal j(9, {1, 2}, p);
  REQUIRE(j.take(chunk(0, 0, {5, 6})) == journal::verdict::taken);
  j.next_attempt();
  const auto m = j.resume(3, 4);
  CHECK(m.request == 9);
  CHECK(m.attempt == 1);
  CHECK(m.replica == 3);
  CHECK(m.generation == 4);
  CHECK(m.prompt == std::vector<int>{1, 2});
  CHECK(m.emitted == std::vector<int>{5, 6});
  CHECK(m.params.seed == 42);
}
