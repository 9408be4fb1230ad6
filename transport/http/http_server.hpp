// An HTTP/1.1 server on Boost.Beast. Knows bytes, limits and clients, nothing of models.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hexgen::transport {

using http_headers = std::vector<std::pair<std::string, std::string>>;

/// The value of `name` (case-insensitive), or nullptr.
[[nodiscard]] const std::string* find_header(const http_headers& headers, std::string_view name);

struct http_request {
  std::string method; // "GET"
  std::string target; // as sent, with the query
  std::string path;   // without the query
  http_headers headers;
  std::string body;
  std::string peer; // address:port
};

struct http_reply {
  int status = 200;
  std::string content_type = "application/json";
  http_headers headers;
  std::string body;
};

/// Answers one request. Thread-safe; every call returns at once. Dropping the last reference
/// without an answer sends a 500.
class http_responder {
public:
  virtual ~http_responder() = default;
  /// The whole answer. Ignored when something was already sent.
  virtual void send(http_reply reply) = 0;
  /// Begins a chunked answer. While nothing is written for `idle`, `idle_text` is sent (empty:
  /// not).
  virtual void start(int status, std::string content_type, http_headers headers,
                     std::string idle_text, std::chrono::milliseconds idle) = 0;
  /// Queues bytes of a chunked answer. False when the connection is closed, or was closed now
  /// because the client left more than `http_limits::stream_buffer` bytes unread.
  virtual bool write(std::string data) = 0;
  virtual void end() = 0;
  /// Runs once, on a server thread, when the client goes before the answer is complete (at once
  /// when it already has). Never after completion.
  virtual void on_closed(std::function<void()> callback) = 0;
  /// Runs `callback` on a server thread after `delay`, unless the answer is complete by then. One
  /// timer per responder: a new one replaces it.
  virtual void after(std::chrono::milliseconds delay, std::function<void()> callback) = 0;
};

struct http_limits {
  std::size_t header = 16 * 1024;              // bytes: longer is 431
  std::uint64_t body = 8 * 1024 * 1024;        // bytes: longer is 413
  std::size_t stream_buffer = 1024 * 1024;     // unread bytes of a stream before it is closed
  std::size_t connections = 4096;              // all
  std::size_t strangers = 256;                 // connections that no request head was accepted on
  std::chrono::milliseconds head_time{10000};  // from the first byte to the end of the head
  std::chrono::milliseconds body_time{60000};  // for the whole body
  std::chrono::milliseconds idle_time{75000};  // between requests
  std::chrono::milliseconds write_time{30000}; // without progress while bytes wait
};

struct http_options {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000; // 0: the system chooses
  int threads = 1;
  http_limits limits;
  std::vector<std::string> cors_origins; // "*" allows all; empty: none
  std::string tls_certificate_file;      // PEM chain; empty: plain HTTP
  std::string tls_key_file;
};

class http_server {
public:
  using handler = std::function<void(http_request, std::shared_ptr<http_responder>)>;
  /// Sees a request without its body before any of the body is read; a reply refuses it.
  using head_check = std::function<std::optional<http_reply>(const http_request&)>;

  /// Binds, listens and starts the threads. Both callbacks run on server threads and must not
  /// block. Throws std::runtime_error naming the address or file that failed.
  http_server(http_options options, handler on_request, head_check check = {});
  ~http_server();
  http_server(const http_server&) = delete;
  http_server& operator=(const http_server&) = delete;

  [[nodiscard]] std::uint16_t port() const;
  [[nodiscard]] std::size_t connections() const;
  /// Stops accepting, closes idle connections, lets running answers finish until `deadline` has
  /// passed, then closes the rest and joins the threads. Not from a server thread. Idempotent.
  void stop(std::chrono::milliseconds deadline);

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

/// {"error": {"message", "type", "param": null, "code": status}}
[[nodiscard]] http_reply http_error(int status, std::string_view type, std::string_view message);

} // namespace hexgen::transport
