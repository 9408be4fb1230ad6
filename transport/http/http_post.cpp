#include "transport/http/http_post.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>

#include <optional>
#include <stdexcept>

namespace hexgen::transport {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;

std::string http_post(const host_port& to, const std::string& target, const std::string& body,
                      std::chrono::milliseconds limit) {
  const auto where = format_address(to.host, to.port);
  asio::io_context io;
  tcp::resolver resolver(io);
  beast::tcp_stream stream(io);
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
  const auto connected = [&](error_code e, const tcp::endpoint&) {
    if (e)
      ended = e;
    else
      http::async_write(stream, question, wrote);
  };
  resolver.async_resolve(to.host, std::to_string(to.port),
                         [&](error_code e, const tcp::resolver::results_type& found) {
                           if (e)
                             ended = e;
                           else
                             stream.async_connect(found, connected);
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

} // namespace hexgen::transport
