// The same exchange over a plain Asio socket, asynchronous, one thread, no framing to speak of.
#include "tools/bench/hop_exchange.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <cstdint>
#include <vector>

namespace hexgen::bench {
namespace {

using boost::asio::ip::tcp;

/// Sends and receives one message at a time through the event loop.
class pipe_end {
public:
  pipe_end(bool listens, const hop_channel& channel)
      : socket_(io_), into_(largest_message), from_(largest_message) {
    const auto loopback = boost::asio::ip::address_v4::loopback();
    if (listens) {
      tcp::acceptor acceptor(io_, tcp::endpoint(loopback, 0));
      channel.put(std::to_string(acceptor.local_endpoint().port()));
      acceptor.accept(socket_);
    } else {
      socket_.connect(
          tcp::endpoint(loopback, static_cast<std::uint16_t>(std::stoi(channel.get()))));
    }
    socket_.set_option(tcp::no_delay(true));
  }
  void send(std::uint32_t type, std::size_t bytes) {
    const message_header header{type, static_cast<std::uint32_t>(bytes)};
    const std::array<boost::asio::const_buffer, 2> parts{
        boost::asio::buffer(&header, sizeof header), boost::asio::buffer(from_.data(), bytes)};
    bool done = false;
    boost::asio::async_write(socket_, parts, [&](auto error, std::size_t) {
      if (error)
        throw boost::system::system_error(error);
      done = true;
    });
    run_until(done);
  }
  message_header receive() {
    message_header header;
    bool done = false;
    boost::asio::async_read(
        socket_, boost::asio::buffer(&header, sizeof header), [&](auto error, std::size_t) {
          if (error)
            throw boost::system::system_error(error);
          boost::asio::async_read(socket_, boost::asio::buffer(into_.data(), header.bytes),
                                  [&](auto failed, std::size_t) {
                                    if (failed)
                                      throw boost::system::system_error(failed);
                                    done = true;
                                  });
        });
    run_until(done);
    return header;
  }

private:
  void run_until(const bool& done) {
    while (!done)
      io_.run_one();
    io_.restart();
  }

  boost::asio::io_context io_{1};
  tcp::socket socket_;
  std::vector<std::byte> into_;
  std::vector<std::byte> from_;
};

} // namespace

std::unique_ptr<hop_driver> make_raw_tcp_driver(const hop_channel& channel) {
  return std::make_unique<exchange_driver<pipe_end>>(true, channel);
}

void serve_raw_tcp(const hop_channel& channel) {
  pipe_end end(false, channel);
  answer(end);
}

} // namespace hexgen::bench
