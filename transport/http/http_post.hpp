// One question to an HTTP server and its answer.
#pragma once

#include "transport/address.hpp"

#include <chrono>
#include <memory>
#include <string>

namespace boost::asio::ssl {
class context;
} // namespace boost::asio::ssl

namespace hexgen::transport {

/// Who is asked. Copies share what was read of the files.
class http_peer {
public:
  struct tls_files {
    std::string authorities; // PEM, whose word is taken for the server's; empty: the system's
    std::string identity;    // PEM, certificate and key to show the server; empty: none
  };

  /// In clear.
  explicit http_peer(host_port at) : at_(std::move(at)) {}
  /// In TLS; the server's certificate must be for `at.host`. Throws std::runtime_error naming the
  /// file that cannot be used.
  http_peer(host_port at, const tls_files& files);
  /// "HOST:PORT", "http://HOST:PORT" or "https://HOST:PORT"; the files are for the last. Throws
  /// std::runtime_error also when `url` is none of these.
  static http_peer of(const std::string& url, const tls_files& files);

  [[nodiscard]] const host_port& at() const { return at_; }
  /// Null: in clear.
  [[nodiscard]] boost::asio::ssl::context* tls() const { return tls_.get(); }

private:
  host_port at_;
  std::shared_ptr<boost::asio::ssl::context> tls_;
};

/// POSTs JSON over a connection of its own and returns the body of a 200 answer. Blocks for `limit`
/// at most. Throws std::runtime_error naming the server: not reached, not the one that its
/// certificate should name, too late, another status.
[[nodiscard]] std::string http_post(const http_peer& to, const std::string& target,
                                    const std::string& body, std::chrono::milliseconds limit);

} // namespace hexgen::transport
