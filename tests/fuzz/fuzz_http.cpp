// Any bytes on the HTTP port: the server answers or closes, and goes on serving.
#include "transport/http/http_server.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>

using namespace hexgen::transport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static http_server server(
      [] {
        http_options options;
        options.port = 0;
        options.limits.head_time = std::chrono::milliseconds(200);
        options.limits.body_time = std::chrono::milliseconds(200);
        return options;
      }(),
      [](http_request request, const std::shared_ptr<http_responder>& to) {
        if (request.body.size() > http_limits{}.body || request.path.find('?') != std::string::npos)
          std::abort();
        to->send(http_error(404, "invalid_request_error", request.target));
      });
  boost::asio::io_context io;
  boost::asio::ip::tcp::socket socket(io);
  boost::system::error_code ec;
  // Thousands of connections a second may find no free port for a moment; a server that no longer
  // listens stays away.
  for (int tries = 0; tries < 100; ++tries) {
    socket.close(ec);
    socket.connect({boost::asio::ip::address_v4::loopback(), server.port()}, ec);
    if (!ec)
      break;
    std::fprintf(stderr, "fuzz_http: connect: %s\n", ec.message().c_str());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (ec)
    std::abort();
  boost::asio::write(socket, boost::asio::buffer(data, size), ec);
  socket.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ec);
  std::array<char, 4096> sink{};
  while (socket.read_some(boost::asio::buffer(sink), ec) > 0) {
  }
  return 0;
}
