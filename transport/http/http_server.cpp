#include "transport/http/http_server.hpp"

#include "transport/http/http_connection.hpp"

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/strand.hpp>

#include <stdexcept>
#include <thread>

namespace hexgen::transport {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;

// Their bodies are compiled in http_connection_plain.cpp and http_connection_tls.cpp.
extern template class http_connection<tcp::socket>;
extern template class http_connection<asio::ssl::stream<tcp::socket>>;

struct http_server::impl {
  std::shared_ptr<http_shared> shared = std::make_shared<http_shared>();
  tcp::acceptor acceptor{shared->io};
  asio::steady_timer retry{shared->io};
  std::vector<std::thread> threads;
  std::uint16_t port = 0;
  bool stopped = false;

  void listen();
  void accept();
  void welcome(tcp::socket socket);
};

void http_server::impl::listen() {
  const auto& options = shared->options;
  const std::string where = options.host + ":" + std::to_string(options.port);
  try {
    if (!options.tls_certificate_file.empty()) {
      auto& tls = shared->tls.emplace(asio::ssl::context::tls_server);
      tls.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                      asio::ssl::context::no_tlsv1_1);
      tls.use_certificate_chain_file(options.tls_certificate_file);
      tls.use_private_key_file(options.tls_key_file, asio::ssl::context::pem);
    }
  } catch (const boost::system::system_error& e) {
    throw std::runtime_error("TLS certificate " + options.tls_certificate_file + " with key " +
                             options.tls_key_file + ": " + e.code().message());
  }
  try {
    tcp::resolver resolver(shared->io);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive);
    const tcp::endpoint end = found.begin()->endpoint();
    acceptor.open(end.protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(end);
    acceptor.listen();
    port = acceptor.local_endpoint().port();
  } catch (const boost::system::system_error& e) {
    throw std::runtime_error("cannot listen for HTTP on " + where + ": " + e.code().message());
  }
}

void http_server::impl::accept() {
  acceptor.async_accept(asio::make_strand(shared->io),
                        [this](boost::system::error_code ec, tcp::socket socket) {
                          if (ec == asio::error::operation_aborted || !acceptor.is_open())
                            return;
                          if (!ec) {
                            welcome(std::move(socket));
                            return accept();
                          }
                          // Out of descriptors, most likely: let some close first.
                          retry.expires_after(std::chrono::milliseconds(100));
                          retry.async_wait([this](boost::system::error_code failed) {
                            if (!failed)
                              accept();
                          });
                        });
}

void http_server::impl::welcome(tcp::socket socket) {
  const auto& limits = shared->options.limits;
  if (shared->connections >= limits.connections || shared->strangers >= limits.strangers)
    return; // closes the socket
  if (shared->tls)
    std::make_shared<http_connection<asio::ssl::stream<tcp::socket>>>(shared, std::move(socket))
        ->start();
  else
    std::make_shared<http_connection<tcp::socket>>(shared, std::move(socket))->start();
}

http_server::http_server(http_options options, handler on_request, head_check check)
    : impl_(std::make_unique<impl>()) {
  impl_->shared->options = std::move(options);
  impl_->shared->on_request = std::move(on_request);
  impl_->shared->check = std::move(check);
  impl_->listen();
  impl_->accept();
  const int threads = std::max(1, impl_->shared->options.threads);
  for (int i = 0; i < threads; ++i)
    impl_->threads.emplace_back([shared = impl_->shared] {
      const auto work = asio::make_work_guard(shared->io);
      shared->io.run();
    });
}

http_server::~http_server() {
  stop(std::chrono::milliseconds(0));
}

std::uint16_t http_server::port() const {
  return impl_->port;
}

std::size_t http_server::connections() const {
  return impl_->shared->connections;
}

void http_server::stop(std::chrono::milliseconds deadline) {
  if (impl_->stopped)
    return;
  impl_->stopped = true;
  auto& shared = *impl_->shared;
  shared.draining = true;
  const auto each = [&](void (http_connection_base::*action)()) {
    std::vector<std::shared_ptr<http_connection_base>> now;
    {
      const std::lock_guard lock(shared.mutex);
      for (const auto& [id, weak] : shared.all)
        if (auto connection = weak.lock())
          now.push_back(std::move(connection));
    }
    for (const auto& connection : now)
      (*connection.*action)();
  };
  asio::post(shared.io, [this] {
    boost::system::error_code ignored;
    impl_->acceptor.close(ignored);
    impl_->retry.cancel();
  });
  each(&http_connection_base::drain);
  const auto until = std::chrono::steady_clock::now() + deadline;
  while (shared.connections > 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  // Connections held only by a responder somewhere else are closed, yet counted: a short wait.
  each(&http_connection_base::kill);
  for (int i = 0; i < 20 && shared.connections > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  shared.io.stop();
  for (auto& thread : impl_->threads)
    thread.join();
  shared.io.restart();
  shared.io.poll(); // lets handlers that were posted meanwhile give up what they hold
}

} // namespace hexgen::transport
