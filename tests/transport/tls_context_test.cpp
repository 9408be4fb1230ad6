#include "tests/catch.hpp"
#include "transport/tls_context.hpp"

using namespace hexgen::transport;

TEST_CASE("identity: role and name, nothing else", "[identity]") {
  const auto identity = parse_identity("client:chat-1");
  REQUIRE(identity);
  CHECK(identity->role == peer_role::client);
  CHECK(identity->name == "chat-1");
  CHECK(to_text(*identity) == "client:chat-1");
  for (const std::string& bad :
       {std::string(), std::string("node:"), std::string("root:x"), std::string("node:a b"),
        "node:" + std::string(129, 'x'), std::string("node:a\0b", 8)})
    CHECK_FALSE(parse_identity(bad));
}

TEST_CASE("identity: keys differ by role and secret and are computed once", "[identity]") {
  const psk node = derive_psk(peer_role::node, "secret");
  CHECK(node == derive_psk(peer_role::node, "secret"));
  CHECK(node != derive_psk(peer_role::client, "secret"));
  CHECK(node != derive_psk(peer_role::node, "Secret"));
}
