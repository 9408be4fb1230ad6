#include "tests/catch.hpp"
#include "transport/outbox.hpp"
#include "transport/record.hpp"

using namespace hexgen::transport;

namespace {

frame make(traffic traffic_class, std::uint32_t type, std::size_t head_bytes = 0) {
  frame f;
  f.traffic_class = traffic_class;
  f.type = type;
  f.head.assign(head_bytes, 'h');
  return f;
}

std::int64_t popped(outbox& box, traffic traffic_class) {
  frame f;
  return box.pop(traffic_class, f) ? static_cast<std::int64_t>(f.type) : -1;
}

} // namespace

TEST_CASE("outbox: only the first push after a sleep wakes", "[outbox]") {
  outbox box(1U << 20);
  bool wake = false;
  box.push(make(traffic::control, 1), wake);
  CHECK(wake);
  box.push(make(traffic::control, 2), wake);
  CHECK_FALSE(wake);
  CHECK_FALSE(box.sleep()); // two frames wait
  CHECK(popped(box, traffic::control) == 1);
  CHECK(popped(box, traffic::control) == 2);
  CHECK(box.sleep());
  box.push(make(traffic::control, 3), wake);
  CHECK(wake);
}

TEST_CASE("outbox: data and bulk wait for their windows, each its own", "[outbox]") {
  outbox box(1U << 20);
  bool wake = false;
  box.push(make(traffic::data, 1), wake);
  box.push(make(traffic::data, 2), wake);
  box.push(make(traffic::bulk, 3), wake);
  CHECK(popped(box, traffic::data) == -1);
  CHECK(box.sleep());          // what waits for a window does not keep the thread awake
  box.grant(traffic::data, 1); // any window lets one frame go, which may overhang
  CHECK(popped(box, traffic::data) == 1);
  CHECK(popped(box, traffic::data) == -1);
  box.grant(traffic::data, window_cost(0, 0));
  CHECK(popped(box, traffic::data) == 2);
  CHECK(popped(box, traffic::bulk) == -1);
  box.grant(traffic::bulk, 1);
  CHECK(popped(box, traffic::bulk) == 3);
  box.grant(traffic::bulk, ~std::uint64_t{0}); // a liar's credit does not overflow
  box.grant(traffic::bulk, ~std::uint64_t{0});
}

TEST_CASE("outbox: the bound counts what is not sent, control has a reserve", "[outbox]") {
  outbox box(1000);
  bool wake = false;
  CHECK(box.push(make(traffic::data, 1, 5000), wake) == send_result::accepted); // empty takes any
  CHECK(box.push(make(traffic::data, 2), wake) == send_result::would_block);
  CHECK(box.push(make(traffic::control, 3), wake) == send_result::accepted);
  box.grant(traffic::data, 1);
  CHECK(popped(box, traffic::data) == 1);
  CHECK(box.push(make(traffic::data, 2), wake) == send_result::would_block); // not yet written
  box.sent(window_cost(5000, 0));
  CHECK(box.push(make(traffic::data, 2), wake) == send_result::accepted);
  CHECK_FALSE(box.idle());
}

TEST_CASE("outbox: overtaking needs an empty lane, a window and an open box", "[outbox]") {
  outbox box(1U << 20);
  bool wake = false;
  send_result result = send_result::accepted;
  const frame f = make(traffic::data, 1);
  CHECK_FALSE(box.overtake(f, result)); // no window
  box.grant(traffic::data, window_cost(0, 0) + 1);
  CHECK(box.overtake(f, result));
  CHECK(result == send_result::accepted);
  CHECK_FALSE(box.idle()); // it counts until it is sent
  box.push(make(traffic::data, 2), wake);
  CHECK_FALSE(box.overtake(f, result)); // one waits before it
  box.close();
  CHECK(box.overtake(f, result));
  CHECK(result == send_result::down);
  CHECK(box.push(f, wake) == send_result::down);
  CHECK(box.idle());
}
