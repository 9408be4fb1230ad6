// What reaches the fabric's port from outside, with and without a secret.
#include "tests/catch.hpp"
#include "tests/transport/recorder.hpp"
#include "tests/transport/tls_probe.hpp"

#include <memory>

using namespace hexgen::transport;
using namespace hexgen::transport::testing;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string dial_error(node& dialler, const std::string& address) {
  dialler.link->dial(address);
  if (!dialler.seen.wait([&] { return !dialler.seen.failed.empty(); }))
    return "no answer";
  const auto failed = dialler.seen.read([&] { return dialler.seen.failed.at(0); });
  CHECK(failed.first == address);
  return failed.second;
}

std::string refusal(node& listener, std::size_t count = 1) {
  if (!listener.seen.wait([&] { return listener.seen.refused.size() >= count; }))
    return "none";
  return listener.seen.read([&] { return listener.seen.refused.at(count - 1).second; });
}

fabric_options client_options(const std::string& name, const std::string& key) {
  fabric_options options = dialer_options(name);
  options.role = peer_role::client;
  options.cluster_token.clear();
  options.api_key = key;
  return options;
}

bool still_serves(node& listener) {
  const std::size_t before = listener.seen.read([&] { return listener.seen.ups.size(); });
  node honest(dialer_options("honest"));
  honest.link->dial(listener.link->address());
  return honest.seen.wait_up() && listener.seen.wait_up(before + 1);
}

} // namespace

TEST_CASE("stranger: a wrong cluster token is said on both sides", "[stranger]") {
  node listener(listener_options("a"));
  fabric_options wrong = dialer_options("b");
  wrong.cluster_token = "another token that is long enough";
  node dialler(wrong);
  CHECK(contains(dial_error(dialler, listener.link->address()), "wrong cluster token"));
  CHECK(contains(refusal(listener), "wrong cluster token from node:b"));
  CHECK(listener.seen.ups.empty());
}

TEST_CASE("stranger: a client needs the API key where there is one", "[stranger]") {
  fabric_options options = listener_options("a");
  options.api_key = "the api key of this cluster";
  node listener(options);
  node wrong(client_options("c1", "not the api key"));
  CHECK(contains(dial_error(wrong, listener.link->address()), "wrong API key"));
  node anonymous(client_options("c2", ""));
  CHECK(contains(dial_error(anonymous, listener.link->address()), "wrong API key"));
  node right(client_options("c3", options.api_key));
  right.link->dial(listener.link->address());
  REQUIRE(right.seen.wait_up());
  REQUIRE(listener.seen.wait_up());
  CHECK(listener.seen.peer().role == peer_role::client);
  CHECK(right.seen.peer().role == peer_role::node);
}

TEST_CASE("stranger: on loopback a client without a key is let in, as a client", "[stranger]") {
  node listener(listener_options("a"));
  node client(client_options("c", ""));
  client.link->dial(listener.link->address());
  REQUIRE(listener.seen.wait_up());
  CHECK(listener.seen.peer().role == peer_role::client);
}

TEST_CASE("stranger: the API key does not make a node", "[stranger]") {
  fabric_options options = listener_options("a");
  options.api_key = "the api key of this cluster";
  node listener(options);
  fabric_options as_node = dialer_options("c");
  as_node.cluster_token = options.api_key;
  node pretender(as_node);
  CHECK(contains(dial_error(pretender, listener.link->address()), "wrong cluster token"));
  // A proven client whose hello claims a node's role, or another name.
  tls_probe role(listener.link->address(), {peer_role::client, "c"}, {"", options.api_key});
  REQUIRE(role.shaken());
  REQUIRE(role.send(record_kind::hello, encode(probe_hello("c"))));
  REQUIRE(role.wait_for(record_kind::refuse));
  CHECK(contains(role.body(), "the hello is not from client:c"));
  CHECK(contains(refusal(listener, 2), "the hello is not from client:c"));
  CHECK(listener.seen.ups.empty());
}

TEST_CASE("stranger: another protocol version is refused with the reason", "[stranger]") {
  node listener(listener_options("a"));
  tls_probe other(listener.link->address(), {peer_role::node, "b"}, {token, ""});
  REQUIRE(other.shaken());
  hello_message hello = probe_hello("b");
  hello.version = 2;
  REQUIRE(other.send(record_kind::hello, encode(hello)));
  REQUIRE(other.wait_for(record_kind::refuse));
  CHECK(contains(other.body(), "protocol version 2 is not spoken here, 1 is"));
  CHECK(contains(refusal(listener), "protocol version 2"));
}

TEST_CASE("stranger: a process cannot dial itself", "[stranger]") {
  node listener(listener_options("a"));
  CHECK(contains(dial_error(listener, listener.link->address()), "itself"));
}

TEST_CASE("stranger: addresses that lead nowhere fail in plain words", "[stranger]") {
  node dialler(dialer_options("a"));
  CHECK(contains(dial_error(dialler, "no address"), "host:port"));
  node second(dialer_options("b"));
  CHECK(contains(dial_error(second, "127.0.0.1:1"), "refused"));
}

TEST_CASE("stranger: garbage is turned away and others go on", "[stranger]") {
  node listener(listener_options("a"));
  const std::string address = listener.link->address();
  std::string noise;
  for (int i = 0; i < 60'000; ++i)
    noise.push_back(static_cast<char>((i * 2654435761U) >> 13U));
  // Also a hand-shake record that announces more and more, beyond what a stranger may send.
  std::string endless;
  for (int i = 0; i < 8; ++i)
    endless += std::string("\x16\x03\x01\x40\x00", 5) + std::string("\x01\x01\x00\x00", 4) +
               std::string(16'380, '\0');
  for (const std::string& bytes : {noise, std::string("GET / HTTP/1.1\r\n\r\n"), endless}) {
    raw_socket socket(address);
    REQUIRE(socket.connected());
    socket.write(bytes);
    CHECK(socket.wait_closed(20'000));
  }
  CHECK(still_serves(listener));
}

TEST_CASE("stranger: a crowd that says nothing neither fills the house nor stays", "[stranger]") {
  node listener(listener_options("a"));
  const std::string address = listener.link->address();
  std::vector<raw_socket> crowd;
  for (std::size_t i = 0; i < limits::unauthenticated_connections + 20; ++i) {
    crowd.emplace_back(address);
    REQUIRE(crowd.back().connected());
    crowd.back().write(std::string("\x16\x03", 2));
  }
  CHECK(still_serves(listener));
  std::size_t turned_away = 0;
  for (raw_socket& socket : crowd)
    turned_away += socket.closed_now() ? 1 : 0;
  CHECK(turned_away >= 20);                // the oldest made room
  CHECK(crowd.back().wait_closed(20'000)); // the rest go when the hand-shake's time is over
  CHECK(contains(refusal(listener), "too many connections"));
}

TEST_CASE("stranger: a proven peer that breaks the framing is dropped alone", "[stranger]") {
  node listener(listener_options("a"));
  const std::string address = listener.link->address();
  node honest(dialer_options("honest"));
  honest.link->dial(address);
  REQUIRE(listener.seen.wait_up());
  std::string unknown_kind(record_header_bytes, '\0');
  unknown_kind[0] = 77;
  std::string early_frame;
  append_header(early_frame, {record_kind::frame, traffic::data, 1, 10, 10, 10});
  std::string huge_message;
  append_header(huge_message, {record_kind::hello, traffic::control, 0, 1U << 30, 0, 0});
  for (const std::string& bytes : {unknown_kind, early_frame, huge_message}) {
    tls_probe probe(address, {peer_role::node, "b"}, {token, ""});
    REQUIRE(probe.shaken());
    REQUIRE(probe.write(bytes));
    CHECK_FALSE(probe.wait_for(record_kind::ready)); // closed instead
  }
  REQUIRE(honest.link->send(honest.seen.peer().id, make_frame(traffic::data, 1, "x")) ==
          send_result::accepted);
  CHECK(listener.seen.wait_frames(1));
  CHECK(listener.seen.read([&] { return listener.seen.downs.empty(); }));
}

TEST_CASE("stranger: a peer that ignores its window is dropped", "[stranger]") {
  fabric_options options = listener_options("a");
  options.window_bytes = 10'000;
  node listener(options);
  tls_probe probe(listener.link->address(), {peer_role::node, "b"}, {token, ""});
  REQUIRE(probe.shaken());
  REQUIRE(probe.send(record_kind::hello, encode(probe_hello("b"))));
  REQUIRE(probe.wait_for(record_kind::offer));
  REQUIRE(probe.send(record_kind::offer, {}));
  // "a" < "b": the fabric judges, so its ready comes first.
  REQUIRE(probe.wait_for(record_kind::ready));
  REQUIRE(probe.send(record_kind::ready, {}));
  std::string frames;
  for (int i = 0; i < 3; ++i) {
    append_header(frames, {record_kind::frame, traffic::data, 1, 0, 6000, 6000});
    frames.append(6000, 'x');
  }
  REQUIRE(probe.write(frames));
  REQUIRE(listener.seen.wait_down());
  CHECK(listener.seen.downs.at(0).reason == down_reason::protocol_error);
  CHECK(contains(listener.seen.downs.at(0).detail, "window"));
  CHECK(listener.seen.frame_count == 2); // the last one in the window may overhang
}
