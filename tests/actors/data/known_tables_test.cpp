#include "actors/data/known_tables.hpp"
#include "tests/catch.hpp"

#include <numeric>

using namespace hexgen;
using namespace hexgen::actors;

namespace {

wire::step_message step(std::uint64_t number, std::vector<compute::step_entry> entries) {
  wire::step_message m;
  m.step = number;
  m.work.entries = std::move(entries);
  return m;
}

void run(known_tables& t, const wire::step_message& m) {
  t.begins(m);
  t.ran(m);
}

} // namespace

TEST_CASE("of a sequence's blocks the full ones are known, with the tokens that were computed") {
  known_tables t;
  wire::sequence_open open;
  open.sequence = 1;
  open.prompt.resize(31);
  std::iota(open.prompt.begin(), open.prompt.end(), 100);
  run(t, step(1, {{1, 0, 20, 0, {7, 5}}})); // its prompt is not known yet
  CHECK(t.all().empty());
  t.open(open);
  run(t, step(2, {{1, 20, 11, 1, {7, 5}}}));
  t.sampled(1, 1);
  REQUIRE(t.all().size() == 1);
  CHECK(t.all()[0].blocks == std::vector<std::uint32_t>{7});
  run(t, step(3, {{1, 31, 1, 1, {7, 5}}}));
  t.sampled(1, 2);
  CHECK(t.last_step() == 3);
  REQUIRE(t.all()[0].blocks == std::vector<std::uint32_t>{7, 5});
  CHECK(t.all()[0].tokens.size() == 32);
  CHECK(t.all()[0].tokens.front() == 100);
  CHECK(t.all()[0].tokens.back() == 1);

  SECTION("drafts that did not stand are not") {
    run(t, step(4, {{1, 32, 17, 17, {7, 5, 9, 4}}}));
    t.sampled(1, 3);
    CHECK(t.all()[0].blocks.size() == 2);
  }
  SECTION("nor is one that another sequence was given since, even if its step broke off") {
    t.begins(step(4, {{2, 0, 3, 0, {5}}}));
    CHECK(t.all().empty());
    CHECK(t.written_in_last(1).size() == 1);
    CHECK(t.written_in_last(1)[0].block == 5);
    CHECK(t.written_in_last(9).size() == 2);
  }
  SECTION("nor one that has gone") {
    t.close(1);
    CHECK(t.all().empty());
  }
}
