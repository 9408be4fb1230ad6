// A raw HTTP client for tests: sends exact bytes, reads what comes.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <cstdint>
#include <string>
#include <string_view>

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

} // namespace hexgen::tests
