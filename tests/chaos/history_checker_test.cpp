#include "tests/catch.hpp"
#include "tests/chaos/history_checker.hpp"

using hexgen::tests::history_checker;

namespace {
history_checker one_request() {
  history_checker h;
  h.submitted(1, {{10, 11, 12}}, {true});
  return h;
}
} // namespace

TEST_CASE("a faultless history has no violations") {
  auto h = one_request();
  h.received(1, 0, {10}, "a", "", 0, 5);
  CHECK(h.open() == 1);
  h.received(1, 0, {11, 12}, "bc", "length", 0, 6);
  CHECK(h.open() == 0);
  h.close();
  CHECK(h.violations().empty());
  CHECK(h.finished() == 1);
}

TEST_CASE("gaps, repetitions, exchanges and additions are seen") {
  for (const std::vector<int>& ids :
       std::vector<std::vector<int>>{{11}, {10, 10}, {10, 12, 11}, {10, 11, 12, 13}, {10, 12}}) {
    auto h = one_request();
    h.received(1, 0, ids, "", "", 0, 5);
    CHECK(h.violations().size() == 1);
  }
}

TEST_CASE("an answer ends once, completely and for the right reason") {
  auto h = one_request();
  h.received(1, 0, {10, 11}, "", "length", 0, 5);
  CHECK(h.violations().size() == 1);
  h.received(1, 0, {12}, "", "length", 0, 6);
  CHECK(h.violations().size() == 2);
  auto wrong = one_request();
  wrong.received(1, 0, {10, 11, 12}, "", "stop", 0, 5);
  CHECK(wrong.violations().size() == 1);
  auto failed = one_request();
  failed.received(1, 0, {}, "", "", 503, 5);
  CHECK(failed.violations().size() == 1);
}

TEST_CASE(
    "an accepted request that never ends is a violation, a refused or cancelled one is none") {
  auto h = one_request();
  h.submitted(2, {{1}}, {true});
  h.refused(2, 503, 3);
  h.submitted(3, {{1}}, {true});
  h.cancelled(3);
  h.close();
  CHECK(h.violations().size() == 1);
  h.received(3, 0, {1}, "", "", 0, 9);
  CHECK(h.violations().size() == 2); // after it was cancelled
  auto late = one_request();
  late.received(1, 0, {10}, "", "", 0, 4);
  late.refused(1, 503, 5);
  CHECK(late.violations().size() == 1);
}
