#include "actors/core/coordinator_state.hpp"
#include "actors/core/route_dialer.hpp"
#include "tests/catch.hpp"

using namespace hexgen;
using namespace hexgen::actors;

namespace {

wire::route route(const std::string& node, const std::string& address) {
  wire::route r;
  r.node = node;
  r.incarnation = 5;
  r.address = address;
  return r;
}

bool nobody(const route_dialer::node&) {
  return false;
}

constexpr std::uint64_t start_us = 1'000'000;
const auto through = transport::relayed_address("a", coordinator_name);

} // namespace

TEST_CASE("a gateway dials a route's node, and asks the coordinator to relay when that fails") {
  route_dialer dialer;
  dialer.relay(7);
  const std::vector<wire::route> routes{route("a", "a:1"), route("a", "a:1")};
  auto now = start_us;
  auto dials = dialer.dials(routes, nobody, now);
  REQUIRE(dials.size() == 1); // two replicas of one node
  CHECK(std::get<dial_peer>(dials[0]).address == "a:1");
  CHECK(dialer.dials(routes, nobody, now + route_dialer::again_us - 1).empty());

  dialer.dial_failed("b:1");
  CHECK(dialer.dials(routes, nobody, now + route_dialer::pause_us).empty());
  dialer.dial_failed("a:1");
  CHECK(dialer.dials(routes, nobody, now + route_dialer::pause_us - 1).empty());
  now += route_dialer::pause_us;
  dials = dialer.dials(routes, nobody, now);
  REQUIRE(dials.size() == 1);
  const auto& ask = std::get<dial_through>(dials[0]);
  CHECK(ask.relay == 7);
  CHECK(ask.name == "a");
  CHECK(ask.incarnation == 5);

  // Then directly again, in turns; also when no answer came at all.
  dialer.dial_failed(through);
  now += route_dialer::pause_us;
  dials = dialer.dials(routes, nobody, now);
  REQUIRE(dials.size() == 1);
  CHECK(std::holds_alternative<dial_peer>(dials[0]));
  now += route_dialer::again_us;
  dials = dialer.dials(routes, nobody, now);
  REQUIRE(dials.size() == 1);
  CHECK(std::holds_alternative<dial_through>(dials[0]));
}

TEST_CASE("a node that opens no port is reached through the coordinator alone") {
  route_dialer dialer;
  const std::vector<wire::route> routes{route("a", "")};
  CHECK(dialer.dials(routes, nobody, start_us).empty()); // which is not there now
  dialer.relay(7);
  for (int i = 0; i < 3; ++i) {
    const auto now = start_us + static_cast<std::uint64_t>(i) * route_dialer::pause_us;
    const auto dials = dialer.dials(routes, nobody, now);
    REQUIRE(dials.size() == 1);
    CHECK(std::get<dial_through>(dials[0]).relay == 7);
    dialer.dial_failed(through);
  }
}

TEST_CASE("without the coordinator a gateway dials on, and whoever is connected is left alone") {
  route_dialer dialer;
  const std::vector<wire::route> routes{route("a", "a:1"), route("b", "b:1")};
  const auto b_is = [](const route_dialer::node& n) { return n == route_dialer::node{"b", 5}; };
  for (int i = 0; i < 3; ++i) {
    const auto now = start_us + static_cast<std::uint64_t>(i) * route_dialer::pause_us;
    const auto dials = dialer.dials(routes, b_is, now);
    REQUIRE(dials.size() == 1);
    CHECK(std::get<dial_peer>(dials[0]).address == "a:1");
    dialer.dial_failed("a:1");
  }
}
