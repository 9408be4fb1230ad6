// The same exchange over a plain Asio socket, asynchronous, one thread, no framing to speak of.
#include "tools/bench/hop_side.hpp"

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

struct message_header {
  std::uint32_t type = 0;
  std::uint32_t bytes = 0;
};

/// Sends and receives one message at a time through the event loop.
class pipe_end {
public:
  explicit pipe_end(tcp::socket socket, boost::asio::io_context& io)
      : io_(io), socket_(std::move(socket)), into_(largest_message), from_(largest_message) {
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

  boost::asio::io_context& io_;
  tcp::socket socket_;
  std::vector<std::byte> into_;
  std::vector<std::byte> from_;
};

class driver final : public hop_driver {
public:
  explicit driver(const hop_channel& channel) : end_(accept(channel), io_) {}
  void round_trip(std::size_t bytes) override {
    end_.send(wants_echo, bytes);
    end_.receive();
  }
  void stream(std::size_t bytes, int count, int depth) override {
    int answered = 0;
    for (int sent = 0; sent < count; ++sent) {
      if (sent - answered == depth) {
        end_.receive();
        ++answered;
      }
      end_.send(wants_ack, bytes);
    }
    for (; answered < count; ++answered)
      end_.receive();
  }

private:
  tcp::socket accept(const hop_channel& channel) {
    tcp::acceptor acceptor(io_, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0));
    channel.put(std::to_string(acceptor.local_endpoint().port()));
    return acceptor.accept();
  }

  boost::asio::io_context io_{1};
  pipe_end end_;
};

} // namespace

std::unique_ptr<hop_driver> make_raw_tcp_driver(const hop_channel& channel) {
  return std::make_unique<driver>(channel);
}

void serve_raw_tcp(const hop_channel& channel) {
  boost::asio::io_context io{1};
  tcp::socket socket(io);
  const auto port = static_cast<std::uint16_t>(std::stoi(channel.get()));
  socket.connect(tcp::endpoint(boost::asio::ip::address_v4::loopback(), port));
  pipe_end end(std::move(socket), io);
  for (;;) {
    const message_header header = end.receive();
    end.send(header.type, header.type == wants_echo ? header.bytes : 0);
  }
}

} // namespace hexgen::bench
