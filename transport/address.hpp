// host:port as people write it.
#pragma once

#include <cstdint>
#include <string>

namespace hexgen::transport {

struct host_port {
  std::string host;
  std::uint16_t port = 0;
};

/// "name:7600", "10.0.0.1:7600" or "[::1]:7600". False: `text` is none of these.
[[nodiscard]] bool parse_address(const std::string& text, host_port& out);
[[nodiscard]] std::string format_address(const std::string& host, std::uint16_t port);

/// The address that peers can dial when the listener is bound to `host`: `host` itself, or for
/// 0.0.0.0 and :: this machine's first address that is not loopback (else 127.0.0.1).
[[nodiscard]] std::string reachable_host(const std::string& host);

/// 127.0.0.0/8 and ::1, as numbers; no name is.
[[nodiscard]] bool is_loopback(const std::string& numeric_host);

} // namespace hexgen::transport
