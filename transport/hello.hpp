// The first message both ways: who is there, of which version, and what it offers.
#pragma once

#include "transport/fabric.hpp"

#include <cstdint>
#include <string>

namespace hexgen::transport {

/// transport/proto/link.proto's hello, checked.
struct hello_message {
  std::uint32_t version = 0; // protocol_version; of another version nothing else is filled in
  std::string name;
  std::uint64_t incarnation = 0;
  peer_role role = peer_role::node;
  std::string address;
  std::string zone;
  std::string ucx_version;
  std::string ucx_address;
  std::uint64_t ucx_cookie = 0;
  std::uint64_t window_bytes = 0;
  bool relays = false; // may be asked to relay, and be told that others do
};

[[nodiscard]] std::string encode(const hello_message& hello);

/// False: `error` names the field that is not acceptable.
[[nodiscard]] bool decode(const std::string& body, hello_message& hello, std::string& error);

} // namespace hexgen::transport
