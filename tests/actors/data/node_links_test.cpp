#include "actors/data/node_links.hpp"
#include "tests/actors/shell/recording_fabric.hpp"
#include "tests/catch.hpp"

using namespace hexgen;
using namespace hexgen::actors;
using test::peer_named;

TEST_CASE("frames go to nodes by name, to the own name straight back") {
  test::recording_fabric fabric;
  node_links links("me");
  int looped = 0;
  links.attach(fabric, [&](auto f) { looped += f->type == 7 ? 1 : 0; });
  CHECK(links.send({"me", 1}, {transport::traffic::data, 7, {}, {}}));
  CHECK(looped == 1);
  CHECK_FALSE(links.send({"you", 1}, {}));
  links.up(peer_named(3, "you"));
  CHECK(links.send({"you", 1}, {transport::traffic::data, 8, {}, {}}));
  REQUIRE(fabric.sent().size() == 1);
  CHECK(fabric.sent()[0].first == 3);
  fabric.full = true;
  CHECK_FALSE(links.send({"you", 1}, {}));
}

TEST_CASE("an old connection's end does not take the new one of the same node") {
  test::recording_fabric fabric;
  node_links links("me");
  links.attach(fabric, [](auto) {});
  links.up(peer_named(3, "you"));
  links.up(peer_named(4, "you"));
  links.down(peer_named(3, "you"));
  CHECK(links.send({"you", 1}, {}));
  CHECK(fabric.sent().back().first == 4);
  links.down(peer_named(4, "you"));
  CHECK_FALSE(links.send({"you", 1}, {}));
}

TEST_CASE("what is meant for a node's new process does not go to the one before") {
  test::recording_fabric fabric;
  node_links links("me");
  links.attach(fabric, [](auto) {});
  links.up(peer_named(3, "you")); // cut off: its end has not been noticed
  CHECK_FALSE(links.send({"you", 2}, {}));
  auto again = peer_named(4, "you");
  again.incarnation = 2;
  links.up(again);
  CHECK(links.send({"you", 2}, {}));
  CHECK(fabric.sent().back().first == 4);
  links.down(peer_named(3, "you"));
  CHECK(links.send({"you", 2}, {}));
}

TEST_CASE("clients are no nodes") {
  test::recording_fabric fabric;
  node_links links("me");
  links.attach(fabric, [](auto) {});
  auto client = peer_named(3, "you");
  client.role = transport::peer_role::client;
  links.up(client);
  CHECK_FALSE(links.send({"you", 1}, {}));
}
