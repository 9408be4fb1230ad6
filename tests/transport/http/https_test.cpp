#include "tests/catch.hpp"
#include "tests/transport/http/self_signed.hpp"
#include "transport/http/http_server.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>

namespace asio = boost::asio;
using namespace hexgen::transport;
using hexgen::transport::testing::self_signed;

TEST_CASE("an HTTPS client streams and hangs up as over plain HTTP") {
  const self_signed pair;
  http_options options;
  options.port = 0;
  options.tls_certificate_file = pair.certificate_file;
  options.tls_key_file = pair.key_file;
  http_server server(options, [](http_request request, const std::shared_ptr<http_responder>& to) {
    to->start(200, "text/plain", {}, "", std::chrono::milliseconds(0));
    to->write(request.path);
    to->write(std::string(100000, 'x'));
    to->end();
  });
  asio::io_context io;
  asio::ssl::context trust(asio::ssl::context::tls_client);
  trust.load_verify_file(pair.certificate_file);
  trust.set_verify_mode(asio::ssl::verify_peer);
  asio::ssl::stream<asio::ip::tcp::socket> client(io, trust);
  client.next_layer().connect({asio::ip::address_v4::loopback(), server.port()});
  client.handshake(asio::ssl::stream_base::client);
  for (const char* path : {"/a", "/b"}) { // kept alive
    const std::string request = std::string("GET ") + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
    asio::write(client, asio::buffer(request));
    std::string reply;
    asio::read_until(client, asio::dynamic_buffer(reply), "\r\n0\r\n\r\n");
    CHECK(reply.find("HTTP/1.1 200 OK") == 0);
    CHECK(reply.find(std::string("\r\n2\r\n") + path + "\r\n") != std::string::npos);
    CHECK(reply.size() > 100000);
  }
  const std::string last = "GET /c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  asio::write(client, asio::buffer(last));
  std::string reply;
  boost::system::error_code ec;
  asio::read(client, asio::dynamic_buffer(reply), ec);
  CHECK(ec == asio::error::eof); // a proper TLS close, not a cut
}

TEST_CASE("a missing HTTPS certificate is named") {
  http_options options;
  options.port = 0;
  options.tls_certificate_file = "/nonexistent/c.pem";
  options.tls_key_file = "/nonexistent/k.pem";
  try {
    http_server server(options, {});
    FAIL("started without a certificate");
  } catch (const std::runtime_error& e) {
    CHECK(std::string(e.what()).find("/nonexistent/c.pem") != std::string::npos);
  }
}
