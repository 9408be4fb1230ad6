#include "transport/fabric_options.hpp"

#include "transport/tls_context.hpp"

#include <algorithm>
#include <random>
#include <stdexcept>

namespace hexgen::transport {
namespace {

std::uint64_t random_u64() {
  std::random_device source;
  const std::uint64_t high = source();
  return std::max<std::uint64_t>((high << 32U) | source(), 1);
}

} // namespace

fabric_options checked_options(fabric_options options) {
  if (!valid_name(options.name))
    throw std::invalid_argument("fabric: the name \"" + options.name +
                                "\" must be 1 to 128 printable characters without blanks");
  if (options.role == peer_role::node && options.cluster_token.empty())
    throw std::invalid_argument("fabric: a node needs the cluster token");
  if (options.role == peer_role::client && !options.listen_host.empty())
    throw std::invalid_argument("fabric: a client cannot listen");
  if (options.heartbeat_ms == 0 || options.down_ms == 0 || options.dial_timeout_ms == 0 ||
      options.window_bytes == 0 || options.send_queue_bytes == 0)
    throw std::invalid_argument("fabric: times, window and queue must not be zero");
  if (options.incarnation == 0)
    options.incarnation = random_u64();
  return options;
}

} // namespace hexgen::transport
