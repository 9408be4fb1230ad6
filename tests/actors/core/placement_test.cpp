#include "actors/core/placement.hpp"
#include "tests/catch.hpp"

using namespace hexgen::actors;

namespace {

placement sample() {
  placement p;
  p.epoch = 3;
  p.replica = 1;
  p.generation = 9;
  p.stages = {{0, 18, {{"a", 1, 0, 1.0}, {"b", 2, 1, 0.5}}}, {18, 12, {{"c", 3, 0, 2.0}}}};
  p.model = {"tiny", "/models/tiny.gguf", 1000, "digest"};
  p.settings.kernels = "fast";
  p.settings.max_step_tokens = 512;
  return p;
}

void refused(placement p, const std::string& field) {
  try {
    (void)decode_placement(encode(p));
    FAIL("taken although " << field << " is wrong");
  } catch (const wire::wire_error& e) {
    CHECK(std::string(e.what()).find(field) != std::string::npos);
  }
}

} // namespace

TEST_CASE("a placement is the same after a trip over the wire") {
  const auto p = sample();
  const auto q = decode_placement(encode(p));
  CHECK(q.same_place(p));
  CHECK(q.to_text() == "a/0+b/1[0-17] c/0[18-29]");
  CHECK(q.epoch == 3);
  CHECK(q.generation == 9);
  CHECK(q.stages[0].ranks[1].speed == 0.5);
  CHECK(q.model.digest == "digest");
  CHECK(q.settings.max_step_tokens == 512);
  CHECK(encode(q) == encode(p));
}

TEST_CASE("placements are compared by processes, devices and layers") {
  const auto p = sample();
  auto q = p;
  q.generation = 10;
  q.stages[0].ranks[0].speed = 7;
  CHECK(p.same_place(q)); // speeds are measured anew and do not move anything
  q.stages[0].ranks[0].incarnation = 5;
  CHECK_FALSE(p.same_place(q));
  CHECK(p.uses("b", 2));
  CHECK_FALSE(p.uses("b", 3));
  placement other = p;
  other.stages = {{0, 30, {{"d", 1, 0, 1}}}};
  CHECK_FALSE(p.shares_device(other));
  other.stages[0].ranks[0] = {"b", 2, 1, 1};
  CHECK(p.shares_device(other));
}

TEST_CASE("placements that make no sense are refused by name") {
  CHECK_THROWS_AS(decode_placement("\xff\xff"), wire::wire_error);
  auto p = sample();
  p.stages.clear();
  refused(p, "stages");
  p = sample();
  p.stages[1].first_layer = 17;
  refused(p, "first_layer");
  p = sample();
  p.stages[0].ranks.clear();
  refused(p, "ranks");
  p = sample();
  p.stages[0].ranks[0].speed = 0;
  refused(p, "speed");
  p = sample();
  p.stages[0].ranks[0].node = std::string(100, 'x');
  refused(p, "node");
  p = sample();
  p.settings.max_step_tokens = 1 << 20;
  refused(p, "max_step_tokens");
}
