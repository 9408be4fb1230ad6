#include "tests/catch.hpp"
#include "transport/ucx_worker.hpp"

#include <string>

using namespace hexgen::transport;

// The peer went between its hello and our call. UCX 1.13 (its mm_ep.c, and the newest too) leaves
// this way out of an endpoint's constructor without freeing the hash it has put the segment in: 100
// bytes, which tests/lsan.supp lets pass.
TEST_CASE("A worker that has gone cannot be connected to, and what it was tried with goes on",
          "[fabric]") {
  std::string why;
  const auto context = ucx_context::make("", why);
  INFO(why);
  REQUIRE(context);
  const auto here = ucx_worker::make(context, why);
  REQUIRE(here);
  auto gone = ucx_worker::make(context, why);
  REQUIRE(gone);
  const std::string its_address = gone->address();
  gone.reset();
  const auto nothing = [](const std::string&) {};
  REQUIRE_FALSE(here->connect(its_address, nothing, why));
  REQUIRE_FALSE(why.empty());

  const auto another = ucx_worker::make(context, why);
  REQUIRE(another);
  CHECK(here->connect(another->address(), nothing, why));
}
