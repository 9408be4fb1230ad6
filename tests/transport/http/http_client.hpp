// A raw HTTP client for tests: sends exact bytes, reads what comes.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace hexgen::tests {

class http_client {
public:
  explicit http_client(std::uint16_t port);
  void send(std::string_view bytes);
  /// Reads until `marker` has come `times` times since the last call, the server closed, or 10 s
  /// are over; returns what came, and keeps what lies after the marker for the next call.
  std::string read_until(std::string_view marker, int times = 1);
  /// Everything until the server closes (10 s at most; closed() then says whether it did).
  std::string read_all();
  [[nodiscard]] bool closed() const { return closed_; }
  void close();

private:
  bool read_more();
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_{io_};
  std::string held_;
  bool closed_ = false;
};

inline http_client::http_client(std::uint16_t port) {
  socket_.connect({boost::asio::ip::address_v4::loopback(), port});
  socket_.non_blocking(true);
}

inline void http_client::send(std::string_view bytes) {
  socket_.non_blocking(false);
  boost::system::error_code gone; // a server that refused early may have closed: reading tells
  boost::asio::write(socket_, boost::asio::buffer(bytes.data(), bytes.size()), gone);
  socket_.non_blocking(true);
}

inline bool http_client::read_more() {
  std::array<char, 65536> piece{};
  std::size_t got = 0;
  bool done = false;
  socket_.async_read_some(boost::asio::buffer(piece),
                          [&](boost::system::error_code ec, std::size_t bytes) {
                            closed_ = closed_ || static_cast<bool>(ec);
                            got = bytes;
                            done = true;
                          });
  io_.restart();
  io_.run_for(std::chrono::seconds(10));
  if (!done) { // nothing came: give up on this read
    socket_.cancel();
    io_.restart();
    io_.run();
    closed_ = false;
    return false;
  }
  held_.append(piece.data(), got);
  return got > 0;
}

inline std::string http_client::read_until(std::string_view marker, int times) {
  for (;;) {
    std::size_t at = 0;
    int seen = 0;
    while (seen < times && (at = held_.find(marker, at)) != std::string::npos) {
      at += marker.size();
      ++seen;
    }
    if (seen == times) {
      const auto text = held_.substr(0, at);
      held_.erase(0, at);
      return text;
    }
    if (closed_ || !read_more())
      return std::exchange(held_, {});
  }
}

inline std::string http_client::read_all() {
  while (!closed_ && read_more()) {
  }
  return std::exchange(held_, {});
}

inline void http_client::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

} // namespace hexgen::tests
