#include "transport/http/http_post.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <openssl/ssl.h>

#include <optional>
#include <stdexcept>
#include <string_view>

namespace hexgen::transport {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using tcp = asio::ip::tcp;
using boost::system::error_code;

namespace {

using tls_stream_of_http = beast::ssl_stream<beast::tcp_stream>;

template <class Next>
void secure(beast::tcp_stream& /*stream*/, Next next) {
  next(error_code{});
}
template <class Next>
void secure(tls_stream_of_http& stream, Next next) {
  stream.async_handshake(ssl::stream_base::client, std::move(next));
}

template <class Stream>
std::string exchange(asio::io_context& io, Stream& stream, const host_port& to,
                     const std::string& target, const std::string& body,
                     std::chrono::milliseconds limit) {
  const auto where = format_address(to.host, to.port);
  tcp::resolver resolver(io);
  http::request<http::string_body> question{http::verb::post, target, 11};
  question.set(http::field::host, where);
  question.set(http::field::content_type, "application/json");
  question.body() = body;
  question.prepare_payload();
  beast::flat_buffer buffer;
  http::response<http::string_body> answer;
  std::optional<error_code> ended; // nothing: not in time
  const auto read = [&](error_code e, std::size_t) { ended = e; };
  const auto wrote = [&](error_code e, std::size_t) {
    if (e)
      ended = e;
    else
      http::async_read(stream, buffer, answer, read);
  };
  const auto secured = [&](error_code e) {
    if (e)
      ended = e;
    else
      http::async_write(stream, question, wrote);
  };
  const auto connected = [&](error_code e, const tcp::endpoint&) {
    if (e)
      ended = e;
    else
      secure(stream, secured);
  };
  resolver.async_resolve(to.host, std::to_string(to.port),
                         [&](error_code e, const tcp::resolver::results_type& found) {
                           if (e)
                             ended = e;
                           else
                             beast::get_lowest_layer(stream).async_connect(found, connected);
                         });
  io.run_for(limit);
  if (!ended)
    throw std::runtime_error(where + " does not answer");
  if (*ended)
    throw std::runtime_error(where + ": " + ended->message());
  if (answer.result() != http::status::ok)
    throw std::runtime_error(where + " answers " + std::to_string(answer.result_int()) + ": " +
                             answer.body().substr(0, 200));
  return std::move(answer.body());
}

} // namespace

http_peer::http_peer(host_port at, const tls_files& files)
    : at_(std::move(at)), tls_(std::make_shared<ssl::context>(ssl::context::tls_client)) {
  tls_->set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                    ssl::context::no_tlsv1_1);
  tls_->set_verify_mode(ssl::verify_peer);
  const auto check = [](const std::string& file, const error_code& e) {
    if (e)
      throw std::runtime_error(file + ": " + e.message());
  };
  error_code e;
  if (files.authorities.empty())
    tls_->set_default_verify_paths(e);
  else
    tls_->load_verify_file(files.authorities, e);
  check(files.authorities.empty() ? "the system's certificates" : files.authorities, e);
  if (files.identity.empty())
    return;
  tls_->use_certificate_chain_file(files.identity, e);
  check(files.identity, e);
  tls_->use_private_key_file(files.identity, ssl::context::pem, e);
  check(files.identity, e);
}

http_peer http_peer::of(const std::string& url, const tls_files& files) {
  constexpr std::string_view clear = "http://", sealed = "https://";
  const bool tls = url.compare(0, sealed.size(), sealed) == 0;
  std::string rest = url;
  if (tls)
    rest = url.substr(sealed.size());
  else if (url.compare(0, clear.size(), clear) == 0)
    rest = url.substr(clear.size());
  host_port at;
  if (!parse_address(rest, at))
    throw std::runtime_error("'" + url + "' is not HOST:PORT or https://HOST:PORT");
  if (!tls && !(files.authorities.empty() && files.identity.empty()))
    throw std::runtime_error("'" + url + "' is spoken to in clear: certificates are for https://");
  return tls ? http_peer(std::move(at), files) : http_peer(std::move(at));
}

std::string http_post(const http_peer& to, const std::string& target, const std::string& body,
                      std::chrono::milliseconds limit) {
  asio::io_context io;
  const auto& at = to.at();
  if (to.tls() == nullptr) {
    beast::tcp_stream stream(io);
    return exchange(io, stream, at, target, body, limit);
  }
  tls_stream_of_http stream(io, *to.tls());
  stream.set_verify_callback(ssl::host_name_verification(at.host));
  SSL_set_tlsext_host_name(stream.native_handle(), at.host.c_str()); // best effort: SNI
  return exchange(io, stream, at, target, body, limit);
}

} // namespace hexgen::transport
