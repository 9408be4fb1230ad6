#include "tests/catch.hpp"
#include "transport/relay_desk.hpp"

#include <set>

using namespace hexgen::transport;

namespace {

relay_desk make_desk(std::size_t most_pairs = 2) {
  return relay_desk(most_pairs, [n = 0]() mutable { return "ticket " + std::to_string(++n); });
}

const relay_desk::end a{"a", 1}, b{"b", 2}, c{"c", 3};
using pairs = std::vector<relay_desk::pair_id>;

} // namespace

TEST_CASE("relay desk: each end has a ticket of its own, for one use", "[relay]") {
  auto desk = make_desk();
  const auto offer = desk.open(a, b, 1000);
  REQUIRE(offer);
  REQUIRE(offer->tickets[0] != offer->tickets[1]);
  CHECK_FALSE(desk.claim("ticket 9", 1000));
  CHECK_FALSE(desk.claim("", 1000));

  const auto second = desk.claim(offer->tickets[1], 1100);
  REQUIRE(second);
  CHECK(second->pair == offer->pair);
  CHECK(second->side == 1);
  CHECK_FALSE(second->both);
  CHECK_FALSE(desk.claim(offer->tickets[1], 1101)); // nobody joins an end with itself

  const auto first = desk.claim(offer->tickets[0], 1200);
  REQUIRE(first);
  CHECK(first->side == 0);
  CHECK(first->both);
  CHECK_FALSE(desk.claim(offer->tickets[0], 1201));
  CHECK_FALSE(desk.claim("", 1201)); // used ones are empty
}

TEST_CASE("relay desk: what one end alone has claimed is over in time", "[relay]") {
  auto desk = make_desk();
  const auto offer = desk.open(a, b, 1000);
  REQUIRE(desk.claim(offer->tickets[0], 1000));
  CHECK(desk.due(1000 + relay_desk::claim_ms - 1).empty());
  CHECK_FALSE(desk.claim(offer->tickets[1], 1000 + relay_desk::claim_ms));
  CHECK(desk.due(1000 + relay_desk::claim_ms) == pairs{offer->pair});
  CHECK(desk.due(1000 + relay_desk::claim_ms).empty());
  CHECK(desk.pairs() == 0);
}

TEST_CASE("relay desk: a pair lasts while bytes go through", "[relay]") {
  auto desk = make_desk();
  const auto offer = desk.open(a, b, 0);
  REQUIRE(desk.claim(offer->tickets[0], 0));
  REQUIRE(desk.claim(offer->tickets[1], 100)->both);
  CHECK(desk.due(100 + relay_desk::silent_ms - 1).empty());
  desk.moved(offer->pair, 100 + relay_desk::silent_ms - 1);
  CHECK(desk.due(100 + relay_desk::silent_ms).empty());
  CHECK(desk.due(99 + 2 * relay_desk::silent_ms) == pairs{offer->pair});
}

TEST_CASE("relay desk: when one end has closed the other has a moment", "[relay]") {
  auto desk = make_desk();
  const auto offer = desk.open(a, b, 0);
  REQUIRE(desk.claim(offer->tickets[0], 0));
  REQUIRE(desk.claim(offer->tickets[1], 0)->both);
  desk.half_closed(offer->pair, 500);
  desk.moved(offer->pair, 1400); // prolongs nothing
  CHECK(desk.due(499 + relay_desk::linger_ms).empty());
  CHECK(desk.due(500 + relay_desk::linger_ms) == pairs{offer->pair});

  const auto next = desk.open(a, b, 5000);
  desk.closed(next->pair);
  CHECK(desk.pairs() == 0);
  CHECK(desk.due(1'000'000).empty());
}

TEST_CASE("relay desk: there are as many pairs as it may have, and one for the same two",
          "[relay]") {
  auto desk = make_desk(2);
  const auto first = desk.open(a, b, 0);
  REQUIRE(first);
  REQUIRE(desk.open(a, c, 0));
  CHECK_FALSE(desk.open(b, c, 0));
  CHECK_FALSE(make_desk(0).open(a, b, 0));

  // The same two again, whoever asks: their old pair makes way.
  const auto again = desk.open(b, a, 10);
  REQUIRE(again);
  CHECK(again->pair != first->pair);
  CHECK_FALSE(desk.claim(first->tickets[0], 10));
  CHECK(desk.due(10) == pairs{first->pair});
  CHECK(desk.pairs() == 2);
  // Another incarnation is another process.
  CHECK_FALSE(desk.open({"a", 7}, b, 10));
}
