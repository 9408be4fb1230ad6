#include "tests/catch.hpp"
#include "transport/hello.hpp"
#include "transport/protocol.hpp"

using namespace hexgen::transport;

namespace {

hello_message good() {
  hello_message hello;
  hello.version = protocol_version;
  hello.name = "node-1";
  hello.incarnation = 77;
  hello.role = peer_role::client;
  hello.address = "10.0.0.1:7600";
  hello.zone = "rack 3";
  hello.ucx_version = "1.13.1";
  hello.ucx_address = std::string("\0\1\2", 3);
  hello.ucx_cookie = 5;
  hello.window_bytes = 1U << 20;
  return hello;
}

std::string refusal(const hello_message& hello) {
  hello_message out;
  std::string error;
  return decode(encode(hello), out, error) ? "" : error;
}

} // namespace

TEST_CASE("hello: what is encoded is decoded", "[hello]") {
  const hello_message in = good();
  hello_message out;
  std::string error;
  REQUIRE(decode(encode(in), out, error));
  CHECK(out.name == in.name);
  CHECK(out.incarnation == in.incarnation);
  CHECK(out.role == in.role);
  CHECK(out.address == in.address);
  CHECK(out.zone == in.zone);
  CHECK(out.ucx_version == in.ucx_version);
  CHECK(out.ucx_address == in.ucx_address);
  CHECK(out.ucx_cookie == in.ucx_cookie);
  CHECK(out.window_bytes == in.window_bytes);
}

TEST_CASE("hello: of another version only the version is read", "[hello]") {
  hello_message in = good();
  in.version = 9;
  in.name = "not a valid name in version 1";
  hello_message out;
  std::string error;
  REQUIRE(decode(encode(in), out, error));
  CHECK(out.version == 9);
  CHECK(out.name.empty());
}

TEST_CASE("hello: fields out of range are named", "[hello]") {
  hello_message hello = good();
  hello.name = "two words";
  CHECK(refusal(hello) == "the hello's name is not acceptable");
  hello = good();
  hello.incarnation = 0;
  CHECK(refusal(hello) == "the hello's incarnation is not acceptable");
  hello = good();
  hello.role = static_cast<peer_role>(2);
  CHECK(refusal(hello) == "the hello's role is not acceptable");
  hello = good();
  hello.address = std::string(600, 'a');
  CHECK(refusal(hello) == "the hello's address is not acceptable");
  hello = good();
  hello.zone = std::string(600, 'a');
  CHECK(refusal(hello) == "the hello's zone is not acceptable");
  hello = good();
  hello.ucx_address = std::string(5000, 'a');
  CHECK(refusal(hello) == "the hello's ucx_address is not acceptable");
  hello = good();
  hello.window_bytes = 0;
  CHECK(refusal(hello) == "the hello's window_bytes is not acceptable");
  hello.window_bytes = 1ULL << 50U;
  CHECK(refusal(hello) == "the hello's window_bytes is not acceptable");
  hello_message out;
  std::string error;
  CHECK_FALSE(decode(std::string(20, '\xff'), out, error));
}
