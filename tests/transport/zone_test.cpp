#include "tests/catch.hpp"
#include "transport/zone.hpp"

using namespace hexgen::transport;

TEST_CASE("zone: the default is one for all processes of this user here", "[zone]") {
  CHECK(default_zone() == default_zone());
  CHECK(resolve_zone("") == (default_zone() == "-" ? "" : default_zone()));
  CHECK(resolve_zone("-").empty());
  CHECK(resolve_zone("rack") == "rack");
}
