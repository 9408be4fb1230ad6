// The client of tests/transport/http/http_client.hpp (its body lies here to be linked once).
#include "tests/transport/http/http_client.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <chrono>

namespace hexgen::tests {

namespace asio = boost::asio;

http_client::http_client(std::uint16_t port) {
  socket_.connect({asio::ip::address_v4::loopback(), port});
  socket_.non_blocking(true);
}

void http_client::send(std::string_view bytes) {
  socket_.non_blocking(false);
  boost::system::error_code gone; // a server that refused early may have closed: reading tells
  asio::write(socket_, asio::buffer(bytes.data(), bytes.size()), gone);
  socket_.non_blocking(true);
}

bool http_client::read_more() {
  std::array<char, 65536> piece{};
  std::size_t got = 0;
  bool done = false;
  socket_.async_read_some(asio::buffer(piece),
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

std::string http_client::read_until(std::string_view marker, int times) {
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

std::string http_client::read_all() {
  while (!closed_ && read_more()) {
  }
  return std::exchange(held_, {});
}

void http_client::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

} // namespace hexgen::tests
