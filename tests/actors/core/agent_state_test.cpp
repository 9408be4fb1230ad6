#include "actors/core/agent_state.hpp"
#include "tests/catch.hpp"

using namespace hexgen;
using namespace hexgen::actors;

namespace {

// When an agent dials its coordinator, of which every dial is refused.
std::vector<std::uint64_t> dials(std::uint64_t incarnation) {
  agent_options o;
  o.name = "a";
  o.incarnation = incarnation;
  o.coordinator = "coordinator:1";
  agent_state agent(o);
  std::vector<std::uint64_t> out;
  std::uint64_t now_us = 1'000'000;
  auto effects = agent.start(now_us);
  for (; now_us < 31'000'000; now_us += 1'000) {
    for (const auto& e : effects)
      if (const auto* dial = std::get_if<agent_do::dial>(&e)) {
        CHECK(dial->address == "coordinator:1");
        out.push_back(now_us);
        (void)agent.dial_failed(dial->address, "refused", now_us);
      }
    effects = agent.tick({}, now_us);
  }
  return out;
}

} // namespace

TEST_CASE("agents dial again and again, later each time, and not in step") {
  const auto one = dials(1), other = dials(0x9e3779b97f4a7c15);
  REQUIRE(one.size() > 15);
  REQUIRE(one.size() < 45);
  CHECK(one[1] - one[0] <= 110'000);
  for (std::size_t i = 8; i < one.size(); ++i) {
    CHECK(one[i] - one[i - 1] >= 1'000'000);
    CHECK(one[i] - one[i - 1] <= 2'002'000);
  }
  std::size_t together = 0;
  for (std::size_t i = 1; i < std::min(one.size(), other.size()); ++i)
    together += one[i] == other[i] ? 1 : 0;
  CHECK(together < 3);
}
