#include "actors/core/coordinator_addresses.hpp"
#include "tests/catch.hpp"

using hexgen::actors::coordinator_addresses;

TEST_CASE("the addresses of a coordinator and of its standby are tried in turn") {
  coordinator_addresses one("a:7600");
  CHECK(one.now() == "a:7600");
  one.turn();
  CHECK(one.now() == "a:7600");
  coordinator_addresses two("a:7600,b:1");
  CHECK(two.now() == "a:7600");
  two.turn();
  CHECK(two.now() == "b:1");
  two.turn();
  CHECK(two.now() == "a:7600");
}
