#include "tests/catch.hpp"
#include "transport/credit_ledger.hpp"

using namespace hexgen::transport;

namespace {

std::shared_ptr<const frame> arrive(credit_ledger& ledger, traffic traffic_class,
                                    std::size_t head_bytes) {
  received_frame in;
  in.traffic_class = traffic_class;
  in.head.assign(head_bytes, 'h');
  if (!ledger.charge(traffic_class, window_cost(head_bytes, 0)))
    return nullptr;
  return ledger.wrap(std::move(in));
}

} // namespace

TEST_CASE("credit ledger: the window returns with the last holder", "[credit]") {
  int woken = 0;
  const auto ledger = std::make_shared<credit_ledger>(1000, [&] { ++woken; });
  auto first = arrive(*ledger, traffic::data, 500);
  auto second = arrive(*ledger, traffic::data, 500);
  REQUIRE(first);
  REQUIRE(second);
  CHECK_FALSE(arrive(*ledger, traffic::data, 1)); // the window is exhausted
  CHECK(arrive(*ledger, traffic::bulk, 1));       // bulk has its own
  CHECK(arrive(*ledger, traffic::control, 1));    // control none
  buffer kept = first->payload;
  first.reset();
  CHECK(ledger->take(traffic::data) == 0); // somebody still holds the payload
  kept = buffer{};
  CHECK(woken == 1);
  CHECK(ledger->take(traffic::data) == window_cost(500, 0));
  CHECK(ledger->take(traffic::data) == 0);
  CHECK(arrive(*ledger, traffic::data, 1));
}

TEST_CASE("credit ledger: small returns are batched, none are lost", "[credit]") {
  int woken = 0;
  const auto ledger = std::make_shared<credit_ledger>(10'000, [&] { ++woken; });
  for (int i = 0; i < 10; ++i)
    arrive(*ledger, traffic::data, 72); // 200 each, let go at once
  CHECK(woken == 0);                    // a quarter of the window is worth a message
  for (int i = 0; i < 3; ++i)
    arrive(*ledger, traffic::data, 72);
  CHECK(woken == 1);
  CHECK(ledger->take(traffic::data) == 13 * window_cost(72, 0));
}

TEST_CASE("credit ledger: a frame may outlive whoever would be told", "[credit]") {
  int woken = 0;
  auto ledger = std::make_shared<credit_ledger>(100, [&] { ++woken; });
  auto held = arrive(*ledger, traffic::data, 50);
  ledger->detach();
  ledger.reset();
  held.reset();
  CHECK(woken == 0);
}
