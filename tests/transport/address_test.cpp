#include "tests/catch.hpp"
#include "transport/address.hpp"

using namespace hexgen::transport;

TEST_CASE("address: host and port as people write them", "[address]") {
  host_port out;
  REQUIRE(parse_address("node-3.example:7600", out));
  CHECK(out.host == "node-3.example");
  CHECK(out.port == 7600);
  REQUIRE(parse_address("[::1]:1", out));
  CHECK(out.host == "::1");
  for (const char* bad : {"", "host", "host:", ":1", "host:0", "host:65536", "host:1x", "::1:1",
                          "[]:1", "[::1]", "host:-1"})
    CHECK_FALSE(parse_address(bad, out));
  CHECK(format_address("::1", 7) == "[::1]:7");
  CHECK(format_address("10.0.0.1", 7) == "10.0.0.1:7");
  CHECK(reachable_host("10.1.2.3") == "10.1.2.3");
  CHECK(reachable_host("0.0.0.0") != "0.0.0.0");
  CHECK(is_loopback("127.0.0.1"));
  CHECK_FALSE(is_loopback("10.0.0.1"));
}
