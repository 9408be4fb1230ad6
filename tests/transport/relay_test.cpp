// Links between processes that cannot dial one another, through a third, over real sockets.
#include "tests/catch.hpp"
#include "tests/transport/recorder.hpp"
#include "tests/transport/tls_probe.hpp"
#include "transport/relay.hpp"

#include <chrono>
#include <memory>
#include <thread>

using namespace hexgen::transport;
using namespace hexgen::transport::testing;

namespace {

/// "a" and "b" open no port; both have dialled "r".
struct relayed_pair {
  explicit relayed_pair(fabric_options relay = listener_options("r"),
                        fabric_options a = dialer_options("a"),
                        fabric_options b = dialer_options("b"))
      : middle(std::make_unique<node>(std::move(relay))), left(std::move(a)), right(std::move(b)) {
    for (node* end : {&left, &right}) {
      end->link->dial(middle->link->address());
      REQUIRE(end->seen.wait_up());
    }
    REQUIRE(middle->seen.wait_up(2));
  }
  void ask() { left.link->dial_through(left.seen.peer().id, "b", right.link->incarnation()); }
  void join() {
    ask();
    REQUIRE(left.seen.wait_up(2));
    REQUIRE(right.seen.wait_up(2));
  }
  std::string failure() {
    if (!left.seen.wait([&] { return !left.seen.failed.empty(); }))
      return "none";
    const auto failed = left.seen.read([&] { return left.seen.failed.front(); });
    CHECK(failed.first == relayed_address("b", "r"));
    return failed.second;
  }

  std::unique_ptr<node> middle;
  node left, right;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("relay: two that only dial out are neighbours, and know through whom", "[relay]") {
  // Two of one machine: the relay brings them together, their data goes by shared memory.
  const std::string zone = GENERATE("-", "");
  const auto end = [&](const char* name) {
    fabric_options options = dialer_options(name);
    options.zone = zone;
    return options;
  };
  relayed_pair nodes(listener_options("r"), end("a"), end("b"));
  nodes.join();
  const peer_info b = nodes.left.seen.peer(1), a = nodes.right.seen.peer(1);
  CHECK(b.kind == (zone == "-" ? link_kind::tls : link_kind::ucx));
  CHECK(b.name == "b");
  CHECK(b.incarnation == nodes.right.link->incarnation());
  CHECK(b.relay == "r");
  CHECK(b.dialled);
  CHECK(b.role == peer_role::node);
  CHECK(a.name == "a");
  CHECK(a.relay == "r");
  CHECK_FALSE(a.dialled);
  CHECK(nodes.left.seen.peer(0).relay.empty());

  constexpr std::uint32_t count = 60;
  for (std::uint32_t i = 0; i < count; ++i)
    for (const traffic c : {traffic::control, traffic::data, traffic::bulk}) {
      const std::size_t bytes = i % 20 == 7 ? 700'000 : i % 5;
      REQUIRE(nodes.left.link->send(b.id, make_frame(c, i, "to b", bytes)) ==
              send_result::accepted);
      REQUIRE(nodes.right.link->send(a.id, make_frame(c, i, "to a", bytes)) ==
              send_result::accepted);
    }
  for (node* end : {&nodes.left, &nodes.right}) {
    REQUIRE(end->seen.wait_frames(3U * count));
    for (const auto& f : end->seen.frames)
      REQUIRE(payload_is_whole(*f, f->type % 20 == 7 ? 700'000 : f->type % 5));
  }
  // Nothing of it was for the relay.
  CHECK(nodes.middle->seen.frame_count == 0);
  CHECK(nodes.middle->seen.ups.size() == 2);
  // What went through is counted, be it that data goes another way.
  const auto carried = [&] { return nodes.middle->link->relayed_bytes(); };
  const std::uint64_t least = zone == "-" ? 2 * 2 * 3 * 700'000 : 1'000;
  for (const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
       carried() < least && std::chrono::steady_clock::now() < until;)
    std::this_thread::sleep_for(std::chrono::milliseconds(10)); // nothing tells of a tick
  CHECK(carried() >= least);
  CHECK(nodes.left.link->relayed_bytes() == 0);
}

TEST_CASE("relay: a consumer that does not read holds the sender, and the relay keeps little",
          "[relay]") {
  fabric_options slow = dialer_options("b");
  slow.window_bytes = 1U << 20;
  fabric_options fast = dialer_options("a");
  fast.send_queue_bytes = 4U << 20;
  relayed_pair nodes(listener_options("r"), fast, slow);
  nodes.join();
  const peer_id b = nodes.left.seen.peer(1).id;
  // The consumer keeps every frame: no window comes back.
  std::size_t taken = 0;
  while (nodes.left.link->send(b, make_frame(traffic::data, 1, {}, 256'000)) ==
         send_result::accepted)
    REQUIRE(++taken < 100);
  CHECK(taken * 256'000 <= (4U << 20) + (1U << 20) + 2 * 256'000);
  // Control passes all the same, both ways.
  REQUIRE(nodes.left.link->send(b, make_frame(traffic::control, 7, {})) == send_result::accepted);
  REQUIRE(nodes.right.seen.wait([&] {
    return std::any_of(nodes.right.seen.frames.begin(), nodes.right.seen.frames.end(),
                       [](const auto& f) { return f->type == 7; });
  }));
  nodes.right.seen.read([&] {
    nodes.right.seen.frames.clear();
    nodes.right.seen.keep_frames = false;
    return 0;
  });
  REQUIRE(nodes.right.seen.wait_frames(taken + 1));
}

TEST_CASE("relay: its loss is the link's, and so is an end's", "[relay]") {
  SECTION("the relay goes") {
    relayed_pair nodes;
    nodes.join();
    nodes.middle.reset();
    REQUIRE(nodes.left.seen.wait_down(2));
    REQUIRE(nodes.right.seen.wait_down(2));
  }
  SECTION("an end leaves: the other hears its goodbye, and they may meet again") {
    relayed_pair nodes;
    nodes.join();
    nodes.right.link->disconnect(nodes.right.seen.peer(1).id);
    REQUIRE(nodes.left.seen.wait_down());
    CHECK(nodes.left.seen.downs[0].reason == down_reason::goodbye);
    CHECK(nodes.left.seen.downs[0].peer.name == "b");
    nodes.ask();
    REQUIRE(nodes.left.seen.wait_up(3));
    REQUIRE(nodes.right.seen.wait_up(3));
  }
}

TEST_CASE("relay: what it cannot or may not do it refuses, with the reason", "[relay]") {
  SECTION("whom it does not know") {
    relayed_pair nodes;
    nodes.left.link->dial_through(nodes.left.seen.peer().id, "b", 12345);
    CHECK(contains(nodes.failure(), "b is not connected with r"));
  }
  SECTION("more pairs than it may have") {
    fabric_options options = listener_options("r");
    options.relay_pairs = 0;
    relayed_pair nodes(options);
    nodes.ask();
    CHECK(contains(nodes.failure(), "relays for 0 pairs at most"));
  }
  SECTION("a chain of relays") {
    relayed_pair nodes;
    nodes.join();
    // a asks b, which it reaches through r, for a link to r.
    nodes.left.link->dial_through(nodes.left.seen.peer(1).id, "r",
                                  nodes.middle->link->incarnation());
    REQUIRE(nodes.left.seen.wait([&] { return !nodes.left.seen.failed.empty(); }));
    CHECK(contains(nodes.left.seen.failed[0].second, "through a relay itself"));
  }
  SECTION("a client that asks is cut off") {
    fabric_options client = dialer_options("c");
    client.role = peer_role::client;
    client.cluster_token.clear();
    relayed_pair nodes;
    node stranger(client);
    stranger.link->dial(nodes.middle->link->address());
    REQUIRE(stranger.seen.wait_up());
    stranger.link->dial_through(stranger.seen.peer().id, "b", nodes.right.link->incarnation());
    REQUIRE(stranger.seen.wait_down());
    CHECK(nodes.right.seen.ups.size() == 1);
  }
  SECTION("two that are connected stay so") {
    relayed_pair nodes;
    nodes.join();
    nodes.ask();
    nodes.join(); // wait_up(2) holds: the first connection
    CHECK(nodes.left.link->send(nodes.left.seen.peer(1).id, make_frame(traffic::control, 9, {})) ==
          send_result::accepted);
    REQUIRE(nodes.right.seen.wait_frames(1));
  }
}

TEST_CASE("relay: strangers with tickets of their own are closed", "[relay][stranger]") {
  node relay(listener_options("r"));
  const auto refused = [&](const std::string& bytes, const std::string& why) {
    const auto before = relay.seen.read([&] { return relay.seen.refused.size(); });
    raw_socket stranger(relay.link->address());
    REQUIRE(stranger.connected());
    // In two pieces, as a network may deliver it.
    REQUIRE(stranger.write(bytes.substr(0, 3)));
    REQUIRE(stranger.write(bytes.substr(3)));
    CHECK(stranger.wait_closed(20'000));
    REQUIRE(relay.seen.wait([&] { return relay.seen.refused.size() > before; }));
    CHECK(contains(relay.seen.read([&] { return relay.seen.refused.back().second; }), why));
  };
  refused(relay_greeting + std::string(relay_ticket_bytes, 'x'), "gave to nobody");
  refused(relay_greeting + std::string(relay_ticket_bytes, '\0'), "gave to nobody");
  refused("HEXRELAX" + std::string(relay_ticket_bytes, 'x'), "neither");
  node honest(dialer_options("a"));
  honest.link->dial(relay.link->address());
  CHECK(honest.seen.wait_up());
}
