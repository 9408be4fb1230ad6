#include "tests/catch.hpp"
#include "tests/transport/recorder.hpp"

#include <array>
#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>

using namespace hexgen::transport;
using namespace hexgen::transport::testing;
using namespace std::chrono_literals;

namespace {

/// One listener and one dialler, connected. Every behaviour is the same on both kinds of link.
struct pair_of_nodes {
  explicit pair_of_nodes(fabric_options a = listener_options("a"),
                         fabric_options b = dialer_options("b"))
      : left(std::move(a)), right(std::move(b)) {
    right.link->dial(left.link->address());
    REQUIRE(right.seen.wait_up());
    REQUIRE(left.seen.wait_up());
  }
  send_result to_left(frame f) { return right.link->send(right.seen.peer().id, std::move(f)); }
  send_result to_right(frame f) { return left.link->send(left.seen.peer().id, std::move(f)); }

  node left;
  node right;
};

fabric_options in_zone(fabric_options options, const std::string& zone) {
  options.zone = zone;
  return options;
}

pair_of_nodes connect(const std::string& zone) {
  return pair_of_nodes(in_zone(listener_options("a"), zone), in_zone(dialer_options("b"), zone));
}

} // namespace

TEST_CASE("fabric: two nodes come up and know each other", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  pair_of_nodes nodes = connect(zone);
  const peer_info b = nodes.left.seen.peer();
  const peer_info a = nodes.right.seen.peer();
  CHECK(a.name == "a");
  CHECK(b.name == "b");
  CHECK(a.incarnation == nodes.left.link->incarnation());
  CHECK(b.incarnation == nodes.right.link->incarnation());
  CHECK(a.dialled);
  CHECK_FALSE(b.dialled);
  CHECK(a.address == nodes.left.link->address());
  CHECK(b.address.empty());
  CHECK(a.role == peer_role::node);
  // UCX needs nothing but shared memory here, so the default zone must use it.
  const link_kind kind = zone == "-" ? link_kind::tls : link_kind::ucx;
  CHECK(a.kind == kind);
  CHECK(b.kind == kind);
}

TEST_CASE("fabric: nodes with unlike versions of UCX talk TLS", "[fabric]") {
  fabric_options other = dialer_options("b");
  other.ucx_version = "1.0.0";
  pair_of_nodes nodes(listener_options("a"), other);
  CHECK(nodes.left.seen.peer().kind == link_kind::tls);
  CHECK(nodes.right.seen.peer().kind == link_kind::tls);
  for (std::uint32_t i = 0; i < 100; ++i) {
    REQUIRE(nodes.to_left(make_frame(traffic::data, i, {}, 5'000)) == send_result::accepted);
    REQUIRE(nodes.to_right(make_frame(traffic::data, i, {}, 5'000)) == send_result::accepted);
  }
  REQUIRE(nodes.left.seen.wait_frames(100));
  REQUIRE(nodes.right.seen.wait_frames(100));
  for (node* side : {&nodes.left, &nodes.right}) {
    for (const auto& f : side->seen.frames)
      CHECK(payload_is_whole(*f, 5'000));
  }
}

TEST_CASE("fabric: frames of a class keep their order and their bytes", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  pair_of_nodes nodes = connect(zone);
  constexpr std::uint32_t count = 300;
  for (std::uint32_t i = 0; i < count; ++i) {
    for (const traffic c : {traffic::control, traffic::data, traffic::bulk}) {
      const std::size_t bytes = i % 50 == 7 ? 70'000 : i % 5;
      REQUIRE(nodes.to_left(make_frame(c, i, "head " + std::to_string(i), bytes)) ==
              send_result::accepted);
    }
  }
  REQUIRE(nodes.left.seen.wait_frames(3U * count));
  std::array<std::uint32_t, 3> next{};
  for (const auto& f : nodes.left.seen.frames) {
    std::uint32_t& expected = next.at(static_cast<std::size_t>(f->traffic_class));
    REQUIRE(f->type == expected);
    REQUIRE(f->head == "head " + std::to_string(expected));
    REQUIRE(payload_is_whole(*f, expected % 50 == 7 ? 70'000 : expected % 5));
    ++expected;
  }
}

TEST_CASE("fabric: threads that attend beside the transport thread keep the order", "[fabric]") {
  pair_of_nodes nodes = connect("");
  constexpr std::uint32_t count = 3000;
  std::atomic<bool> enough{false};
  const auto all_there = [&] {
    return enough || nodes.left.seen.read([&] { return nodes.left.seen.frame_count; }) >= count;
  };
  std::vector<std::thread> attending;
  for (int i = 0; i < 2; ++i)
    attending.emplace_back([&] {
      while (!all_there())
        nodes.left.link->attend(all_there, 20us);
    });
  for (std::uint32_t i = 0; i < count; ++i)
    while (nodes.to_left(make_frame(traffic::data, i, {}, i % 100 == 7 ? 70'000 : i % 9)) !=
           send_result::accepted)
      std::this_thread::yield();
  CHECK(nodes.left.seen.wait_frames(count));
  enough = true;
  for (auto& thread : attending)
    thread.join();
  std::uint32_t expected = 0;
  for (const auto& f : nodes.left.seen.frames) {
    REQUIRE(f->type == expected);
    REQUIRE(payload_is_whole(*f, expected % 100 == 7 ? 70'000 : expected % 9));
    ++expected;
  }
}

TEST_CASE("fabric: no frame comes after stop, whoever attends", "[fabric]") {
  for (int round = 0; round < 5; ++round) {
    auto nodes = std::make_unique<pair_of_nodes>(in_zone(listener_options("a"), ""),
                                                 in_zone(dialer_options("b"), ""));
    std::atomic<bool> stopped{false}, end{false};
    std::atomic<int> late{0};
    nodes->left.seen.on_frame_hook = [&](const auto&) { late += stopped ? 1 : 0; };
    std::thread attends([&] {
      while (!end)
        nodes->left.link->attend([&] { return end.load(); }, 20us);
    });
    std::thread sends([&] {
      while (nodes->to_left(make_frame(traffic::data, 1, {}, 100)) != send_result::down)
        std::this_thread::yield();
    });
    REQUIRE(nodes->left.seen.wait_frames(50));
    nodes->left.link->stop();
    stopped = true;
    sends.join();
    end = true;
    attends.join();
    CHECK(late == 0);
  }
}

TEST_CASE("fabric: the largest frame crosses whole, one byte more is refused", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  pair_of_nodes nodes = connect(zone);
  const std::string head(limits::head_bytes, 'h');
  REQUIRE(nodes.to_left(make_frame(traffic::data, 9, head, limits::payload_bytes)) ==
          send_result::accepted);
  REQUIRE(nodes.left.seen.wait_frames(1));
  const auto f = nodes.left.seen.frames.at(0);
  CHECK(f->head == head);
  CHECK(payload_is_whole(*f, limits::payload_bytes));
  CHECK_THROWS_AS(nodes.to_left(make_frame(traffic::data, 9, head + "h")), std::invalid_argument);
}

TEST_CASE("fabric: a consumer that holds frames stops the sender, letting go frees it",
          "[fabric]") {
  const std::string zone = GENERATE("-", "");
  fabric_options a = in_zone(listener_options("a"), zone);
  fabric_options b = in_zone(dialer_options("b"), zone);
  a.window_bytes = 100'000;
  b.send_queue_bytes = 200'000;
  pair_of_nodes nodes(a, b);
  std::uint32_t sent = 0;
  send_result last = send_result::accepted;
  while (last == send_result::accepted && sent < 1000) {
    last = nodes.to_left(make_frame(traffic::data, sent, {}, 10'000));
    sent += last == send_result::accepted ? 1 : 0;
    if (sent >= 10) // the window is full by then; before that the queue may drain between sends
      nodes.left.seen.wait_frames(10);
  }
  REQUIRE(last == send_result::would_block);
  REQUIRE(sent >= 20); // a window's worth crossed, a queue's worth waits
  REQUIRE(sent <= 40);
  // Control passes while data stands still.
  REQUIRE(nodes.to_left(make_frame(traffic::control, 7, "control")) == send_result::accepted);
  REQUIRE(nodes.left.seen.wait([&] {
    const auto& frames = nodes.left.seen.frames;
    return !frames.empty() && frames.back()->traffic_class == traffic::control;
  }));
  CHECK(nodes.left.seen.read([&] { return nodes.left.seen.frame_count; }) < sent + 1);
  // Letting go, on this thread, lets the rest through.
  nodes.left.seen.read([&] { nodes.left.seen.keep_frames = false; });
  std::vector<std::shared_ptr<const frame>> held;
  nodes.left.seen.read([&] { held.swap(nodes.left.seen.frames); });
  held.clear();
  REQUIRE(nodes.left.seen.wait_frames(sent + 1));
}

TEST_CASE("fabric: frames outlive the fabric that received them", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  std::vector<std::shared_ptr<const frame>> kept;
  {
    pair_of_nodes nodes = connect(zone);
    for (const std::size_t bytes : {std::size_t{100}, std::size_t{20'000}, std::size_t{500'000}})
      REQUIRE(nodes.to_left(make_frame(traffic::data, 3, "x", bytes)) == send_result::accepted);
    REQUIRE(nodes.left.seen.wait_frames(3));
    kept = nodes.left.seen.frames;
  }
  CHECK(payload_is_whole(*kept[0], 100));
  CHECK(payload_is_whole(*kept[1], 20'000));
  CHECK(payload_is_whole(*kept[2], 500'000));
}

TEST_CASE("fabric: stop says goodbye after what was sent", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  pair_of_nodes nodes = connect(zone);
  for (std::uint32_t i = 0; i < 100; ++i)
    REQUIRE(nodes.to_left(make_frame(traffic::data, i, {}, 5000)) == send_result::accepted);
  const auto begin = std::chrono::steady_clock::now();
  nodes.right.link->stop();
  const bool in_time = std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(300);
  REQUIRE(nodes.left.seen.wait_down());
  if (in_time) { // else the machine was too busy for the second that stop may take
    CHECK(nodes.left.seen.downs.at(0).reason == down_reason::goodbye);
    CHECK(nodes.left.seen.frame_count == 100);
  }
  CHECK(nodes.right.link->send(nodes.right.seen.peer().id, frame{}) == send_result::down);
}

TEST_CASE("fabric: stop is bounded with traffic in flight both ways", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  pair_of_nodes nodes = connect(zone);
  const frame big = make_frame(traffic::data, 1, {}, 8U << 20);
  for (int i = 0; i < 8; ++i) {
    nodes.to_left(big);
    nodes.to_right(big);
  }
  const auto begin = std::chrono::steady_clock::now();
  nodes.right.link->stop();
  // The limit is 1 s; the rest is room for a machine whose threads wait for a core.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
  REQUIRE(nodes.left.seen.wait_down());
}

TEST_CASE("fabric: disconnect ends one peer and says so on both sides", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  pair_of_nodes nodes = connect(zone);
  nodes.left.link->disconnect(nodes.left.seen.peer().id);
  REQUIRE(nodes.left.seen.wait_down());
  REQUIRE(nodes.right.seen.wait_down());
  CHECK(nodes.left.seen.downs.at(0).reason == down_reason::local);
  CHECK(nodes.right.seen.downs.at(0).reason == down_reason::goodbye);
  // The pair can connect again; the peer gets another id.
  nodes.right.link->dial(nodes.left.link->address());
  REQUIRE(nodes.left.seen.wait_up(2));
  CHECK(nodes.left.seen.peer(1).id != nodes.left.seen.peer(0).id);
}

TEST_CASE("fabric: both sides dial at once and one connection stays", "[fabric]") {
  const std::string zone = GENERATE("-", "");
  for (int round = 0; round < 5; ++round) {
    node a(in_zone(listener_options("a"), zone));
    node b(in_zone(listener_options("b"), zone));
    a.link->dial(b.link->address());
    b.link->dial(a.link->address());
    REQUIRE(a.seen.wait_up());
    REQUIRE(b.seen.wait_up());
    // Frames both ways settle that both use the same one; nothing went down meanwhile.
    REQUIRE(a.link->send(a.seen.peer().id, make_frame(traffic::data, 1, "to b")) ==
            send_result::accepted);
    REQUIRE(b.link->send(b.seen.peer().id, make_frame(traffic::data, 1, "to a")) ==
            send_result::accepted);
    REQUIRE(a.seen.wait_frames(1));
    REQUIRE(b.seen.wait_frames(1));
    a.link->dial(b.link->address()); // again, when connected: nothing changes
    REQUIRE(b.link->send(b.seen.peer().id, make_frame(traffic::data, 2, "to a")) ==
            send_result::accepted);
    REQUIRE(a.seen.wait_frames(2));
    CHECK(a.seen.read([&] { return a.seen.ups.size() + a.seen.downs.size(); }) == 1);
    CHECK(b.seen.read([&] { return b.seen.ups.size() + b.seen.downs.size(); }) == 1);
    CHECK(a.seen.read([&] { return a.seen.failed.empty() && a.seen.refused.empty(); }));
  }
}

TEST_CASE("fabric: a restarted process is a new peer", "[fabric]") {
  node a(listener_options("a"));
  std::uint64_t first = 0;
  {
    node b(dialer_options("b"));
    b.link->dial(a.link->address());
    REQUIRE(a.seen.wait_up());
    first = b.link->incarnation();
  }
  REQUIRE(a.seen.wait_down());
  node b(dialer_options("b"));
  b.link->dial(a.link->address());
  REQUIRE(a.seen.wait_up(2));
  CHECK(a.seen.peer(1).name == "b");
  CHECK(a.seen.peer(1).incarnation != first);
  CHECK(a.seen.peer(1).id != a.seen.peer(0).id);
}

TEST_CASE("fabric: tasks run on the transport thread, delayed ones later", "[fabric]") {
  node a(listener_options("a"));
  std::promise<std::thread::id> now;
  std::promise<std::thread::id> later;
  const auto begin = std::chrono::steady_clock::now();
  a.link->post([&] { later.set_value(std::this_thread::get_id()); }, 30);
  a.link->post([&] { now.set_value(std::this_thread::get_id()); }, 0);
  const std::thread::id thread = now.get_future().get();
  CHECK(thread == later.get_future().get());
  CHECK(thread != std::this_thread::get_id());
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(30));
}

TEST_CASE("fabric: heartbeats measure the link", "[fabric]") {
  fabric_options a = listener_options("a");
  fabric_options b = dialer_options("b");
  a.heartbeat_ms = b.heartbeat_ms = 20;
  pair_of_nodes nodes(a, b);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  double latency_us = 0;
  while (latency_us == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    latency_us = nodes.left.link->stats(nodes.left.seen.peer().id).latency_us;
  }
  CHECK(latency_us > 0);
  CHECK(latency_us < 1e6);
}

TEST_CASE("fabric: options that cannot work are refused", "[fabric]") {
  recorder seen;
  fabric_options options = listener_options("a");
  options.cluster_token.clear();
  CHECK_THROWS_AS(make_fabric(options, seen), std::invalid_argument);
  options = listener_options("with blank");
  CHECK_THROWS_AS(make_fabric(options, seen), std::invalid_argument);
  options = listener_options("a");
  options.listen_host = "203.0.113.7"; // not an address of this machine
  const auto elsewhere = make_fabric(options, seen);
  std::string why;
  try {
    elsewhere->start();
  } catch (const std::runtime_error& error) {
    why = error.what();
  }
  CHECK(why.find("203.0.113.7") != std::string::npos);
}
