#include "transport/dialer.hpp"

#include "transport/address.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <utility>

namespace hexgen::transport {
namespace {

using boost::asio::ip::tcp;

struct attempt : std::enable_shared_from_this<attempt> {
  attempt(boost::asio::io_context& io, dial_done d)
      : resolver(io), socket(io), timer(io), done(std::move(d)) {}

  void start(const host_port& to, std::uint32_t timeout_ms) {
    timer.expires_after(std::chrono::milliseconds(timeout_ms));
    timer.async_wait([self = shared_from_this(), timeout_ms](auto error) {
      if (!error)
        self->finish("no answer within " + std::to_string(timeout_ms) + " ms");
    });
    boost::system::error_code not_numeric;
    const auto numeric = boost::asio::ip::make_address(to.host, not_numeric);
    if (!not_numeric) // no need for the resolver and its thread
      return connect(tcp::resolver::results_type::create(tcp::endpoint(numeric, to.port), to.host,
                                                         std::to_string(to.port)));
    resolver.async_resolve(
        to.host, std::to_string(to.port),
        [self = shared_from_this()](auto error, const tcp::resolver::results_type& found) {
          if (error)
            return self->finish("cannot resolve the name: " + error.message());
          if (self->done)
            self->connect(found);
        });
  }

  void connect(const tcp::resolver::results_type& found) {
    boost::asio::async_connect(socket, found,
                               [self = shared_from_this()](auto error, const auto& /*endpoint*/) {
                                 self->finish(error ? error.message() : std::string());
                               });
  }

  void finish(const std::string& error) {
    if (!done)
      return;
    const dial_done call = std::exchange(done, nullptr);
    timer.cancel();
    resolver.cancel();
    if (!error.empty()) {
      boost::system::error_code ignored;
      socket.close(ignored);
    }
    call(std::move(socket), error);
  }

  tcp::resolver resolver;
  tcp::socket socket;
  boost::asio::steady_timer timer;
  dial_done done;
};

} // namespace

void dial_tcp(boost::asio::io_context& io, const std::string& address, std::uint32_t timeout_ms,
              dial_done done) {
  auto made = std::make_shared<attempt>(io, std::move(done));
  host_port to;
  if (!parse_address(address, to))
    return boost::asio::post(io, [made] { made->finish("not an address of the form host:port"); });
  made->start(to, timeout_ms);
}

} // namespace hexgen::transport
