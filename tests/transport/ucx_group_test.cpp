// Two paths in one process, and no transport thread: what arrives was received by attend().
#include "tests/catch.hpp"
#include "transport/ucx_group.hpp"

#include <boost/asio/io_context.hpp>

#include <memory>
#include <string>
#include <vector>

using namespace hexgen::transport;
using namespace std::chrono_literals;

namespace {

struct owner final : ucx_path_owner {
  void on_probe() override { probed = true; }
  bool on_ucx_charge(std::uint64_t cost) override {
    charged += cost;
    return true;
  }
  void on_ucx_frame(received_frame f) override { types.push_back(f.type); }
  void on_ucx_sent(std::uint64_t /*cost*/) override { ++sent; }
  void on_ucx_failed(const std::string& detail) override { failure = detail; }

  bool probed = false;
  std::uint64_t charged = 0;
  int sent = 0;
  std::vector<std::uint32_t> types;
  std::string failure;
};

/// One end: its own context, as another process would have.
struct end {
  end() {
    std::string why;
    auto worker = ucx_worker::make(ucx_context::make("", why), why);
    INFO(why);
    REQUIRE(worker);
    path = std::make_shared<ucx_path>(std::move(worker), seen);
    group.add(path);
  }
  ~end() {
    group.remove(*path);
    path->close();
  }
  void connect(end& to) {
    std::string why;
    INFO(why);
    REQUIRE(path->connect(to.path->worker().address(), to.path->cookie(), why));
  }

  owner seen;
  boost::asio::io_context io;
  ucx_group group{io};
  std::shared_ptr<ucx_path> path;
};

frame data_frame(std::uint32_t type, std::size_t bytes) {
  frame f;
  f.traffic_class = traffic::data;
  f.type = type;
  f.payload = buffer::copy_of(std::vector<std::byte>(bytes));
  return f;
}

} // namespace

TEST_CASE("ucx group: a thread that attends receives in the transport thread's place",
          "[ucx_group]") {
  end left, right;
  left.connect(right);
  right.connect(left);
  right.path->open();
  outbox box(64U << 20);
  box.grant(traffic::data, 64U << 20);
  constexpr std::uint32_t count = 20;
  for (std::uint32_t i = 0; i < count; ++i) {
    frame f = data_frame(i, i == 11 ? 300'000 : 64); // one is large enough for a rendezvous
    send_result result = send_result::down;
    REQUIRE(left.path->send_now(box, f, result) != ucx_path::now::no);
    REQUIRE(result == send_result::accepted);
  }
  const auto all = [&] { return right.seen.types.size() == count; };
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (!all() && std::chrono::steady_clock::now() < until) {
    left.group.progress(); // a rendezvous needs its sender
    right.group.attend(all, 1ms);
  }
  REQUIRE(all());
  for (std::uint32_t i = 0; i < count; ++i)
    CHECK(right.seen.types[i] == i);
  CHECK(right.seen.probed);
  CHECK(right.seen.failure.empty());
}

TEST_CASE("ucx group: nothing is armed while a thread attends, everything once it gave up",
          "[ucx_group]") {
  end left, right;
  left.connect(right);
  right.connect(left);
  const auto quiet = [&] { return !right.group.progress() && !left.group.progress(); };
  while (!quiet()) {
  }
  bool armed_inside = true;
  right.group.attend(
      [&, asked = 0]() mutable {
        if (++asked == 2) {
          right.group.arm();
          armed_inside = !right.path->awake();
        }
        return asked == 2;
      },
      20s);
  CHECK_FALSE(armed_inside);
  right.group.attend([] { return false; }, 1us); // gives up: nobody is expected back
  while (!right.group.arm())
    right.group.progress();
  CHECK_FALSE(right.path->awake());
}
