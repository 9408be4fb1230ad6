#include "actors/core/straggler_watch.hpp"
#include "tests/catch.hpp"

using namespace hexgen::actors;

namespace {

const straggler_watch::device a{"a", 0}, b{"b", 0}, c{"c", 0};

struct fleet {
  straggler_watch watch;
  std::uint64_t now_ms = 1'000;
  std::vector<straggler_watch::verdict> verdicts;

  void run(std::map<straggler_watch::device, double> ratios, int seconds) {
    for (int i = 0; i < seconds; ++i, now_ms += 1'000)
      for (const auto& v : watch.observe(ratios, now_ms))
        verdicts.push_back(v);
  }
};

} // namespace

TEST_CASE("a device three times slower than the rest is noticed, a busy moment is not") {
  fleet f;
  f.run({{a, 1}, {b, 1.2}, {c, 1}}, 60);
  f.run({{a, 1}, {b, 9}, {c, 1}}, 5);
  f.run({{a, 1}, {b, 1}, {c, 1}}, 20);
  CHECK(f.verdicts.empty());
  f.run({{a, 1}, {b, 3}, {c, 1.1}}, 30);
  REQUIRE(f.verdicts.size() == 1);
  CHECK(f.verdicts[0].which == b);
  CHECK(f.verdicts[0].factor == Approx(3).epsilon(0.1));
  CHECK(f.watch.factor(b) > 2.5);
  CHECK(f.watch.factor(a) == 1);
}

TEST_CASE("what slows all down moves nothing, and one device alone has no measure") {
  fleet f;
  f.run({{a, 8}, {b, 7}, {c, 9}}, 60);
  f.run({{a, 30}}, 60);
  CHECK(f.verdicts.empty());
}

TEST_CASE("a straggler that is well again is believed after a while") {
  fleet f;
  f.run({{a, 1}, {b, 4}}, 30);
  REQUIRE(f.verdicts.size() == 1);
  f.run({{a, 1}, {b, 1}}, 8);
  CHECK(f.watch.factor(b) > 2.5);
  f.run({{a, 1}, {b, 1}}, 20);
  CHECK(f.watch.factor(b) == 1);
}

TEST_CASE("one without work is tried again, later each time") {
  fleet f;
  const auto slow_then_idle = [&](int idle_s) {
    f.verdicts.clear();
    f.run({{a, 1}, {b, 4}}, 30);
    REQUIRE(f.verdicts.size() == 1);
    f.run({{a, 1}, {c, 1}}, idle_s);
    return f.watch.factor(b) == 1;
  };
  CHECK(slow_then_idle(61));
  CHECK_FALSE(slow_then_idle(61));
  f.run({{a, 1}, {c, 1}}, 60);
  CHECK(f.watch.factor(b) == 1);
  f.watch.forget("b");
  CHECK(slow_then_idle(61));
}
