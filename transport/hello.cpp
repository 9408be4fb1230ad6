#include "transport/hello.hpp"

#include "transport/proto/link.pb.h"
#include "transport/protocol.hpp"
#include "transport/tls_context.hpp"

namespace hexgen::transport {
namespace {

constexpr std::size_t longest_text = 512;
constexpr std::size_t longest_ucx_address = 4096;
constexpr std::uint64_t largest_window = 1ULL << 40;

} // namespace

std::string encode(const hello_message& hello) {
  proto::link::hello out;
  out.set_protocol_version(hello.version);
  out.set_name(hello.name);
  out.set_incarnation(hello.incarnation);
  out.set_role(static_cast<std::uint32_t>(hello.role));
  out.set_address(hello.address);
  out.set_zone(hello.zone);
  out.set_ucx_version(hello.ucx_version);
  out.set_ucx_address(hello.ucx_address);
  out.set_ucx_cookie(hello.ucx_cookie);
  out.set_window_bytes(hello.window_bytes);
  out.set_relays(hello.relays);
  return out.SerializeAsString();
}

bool decode(const std::string& body, hello_message& hello, std::string& error) {
  hello = hello_message{};
  proto::link::hello in;
  if (!in.ParseFromString(body)) {
    error = "the hello is not readable";
    return false;
  }
  hello.version = in.protocol_version();
  if (hello.version != protocol_version)
    return true; // the caller refuses it by its version; other fields may mean anything
  const auto bad = [&error](const char* field) {
    error = std::string("the hello's ") + field + " is not acceptable";
    return false;
  };
  if (!valid_name(in.name()))
    return bad("name");
  if (in.incarnation() == 0)
    return bad("incarnation");
  if (in.role() > static_cast<std::uint32_t>(peer_role::client))
    return bad("role");
  if (in.address().size() > longest_text)
    return bad("address");
  if (in.zone().size() > longest_text)
    return bad("zone");
  if (in.ucx_version().size() > longest_text)
    return bad("ucx_version");
  if (in.ucx_address().size() > longest_ucx_address)
    return bad("ucx_address");
  if (in.window_bytes() == 0 || in.window_bytes() > largest_window)
    return bad("window_bytes");
  hello.name = in.name();
  hello.incarnation = in.incarnation();
  hello.role = static_cast<peer_role>(in.role());
  hello.address = in.address();
  hello.zone = in.zone();
  hello.ucx_version = in.ucx_version();
  hello.ucx_address = in.ucx_address();
  hello.ucx_cookie = in.ucx_cookie();
  hello.window_bytes = in.window_bytes();
  hello.relays = in.relays();
  return true;
}

} // namespace hexgen::transport
