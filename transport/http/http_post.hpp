// One question to an HTTP server and its answer.
#pragma once

#include "transport/address.hpp"

#include <chrono>
#include <string>

namespace hexgen::transport {

/// POSTs JSON over a connection of its own and returns the body of a 200 answer. Blocks for `limit`
/// at most. Throws std::runtime_error naming the server: not reached, too late, another status.
[[nodiscard]] std::string http_post(const host_port& to, const std::string& target,
                                    const std::string& body, std::chrono::milliseconds limit);

} // namespace hexgen::transport
