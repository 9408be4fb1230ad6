// Opens TCP connections: resolve, connect, give up in time.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace hexgen::transport {

/// Called once: with a connected socket, or with `error` in plain words.
using dial_done =
    std::function<void(boost::asio::ip::tcp::socket socket, const std::string& error)>;

/// Never blocks. Runs on `io`; what is still under way ends when `io` is destroyed.
void dial_tcp(boost::asio::io_context& io, const std::string& address, std::uint32_t timeout_ms,
              dial_done done);

} // namespace hexgen::transport
