// One client's connection, over a plain or a TLS stream. Internal to the HTTP server.
#pragma once

#include "transport/http/http_exchange.hpp"
#include "transport/http/http_server.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <atomic>
#include <map>
#include <mutex>
#include <optional>

namespace hexgen::transport {

class http_connection_base {
public:
  virtual ~http_connection_base() = default;
  /// Any thread: close when idle, else after the running answer.
  virtual void drain() = 0;
  /// Any thread: close now.
  virtual void kill() = 0;
};

/// What all connections of a server share. The io_context lives here, so that a responder that
/// outlives the server still refers to valid memory.
struct http_shared {
  http_options options;
  http_server::handler on_request;
  http_server::head_check check;
  boost::asio::io_context io;
  std::optional<boost::asio::ssl::context> tls;
  std::atomic<bool> draining = false;
  std::atomic<std::size_t> connections = 0;
  std::atomic<std::size_t> strangers = 0;
  std::mutex mutex; // guards what follows
  std::uint64_t next_id = 0;
  std::map<std::uint64_t, std::weak_ptr<http_connection_base>> all;
};

/// `Stream` is tcp::socket or ssl::stream<tcp::socket>. Everything below runs on the socket's
/// strand, except where said.
template <class Stream>
class http_connection : public http_connection_base,
                        public std::enable_shared_from_this<http_connection<Stream>> {
public:
  http_connection(std::shared_ptr<http_shared> server, boost::asio::ip::tcp::socket socket);
  ~http_connection() override;
  void start(); // any thread
  void drain() override;
  void kill() override;

  // From responders, on the strand.
  void send(const std::shared_ptr<http_exchange>& exchange, http_reply reply);
  void begin(const std::shared_ptr<http_exchange>& exchange, int status,
             const std::string& content_type, http_headers headers, std::string idle_text,
             std::chrono::milliseconds idle);
  void write(const std::shared_ptr<http_exchange>& exchange, std::string data);
  void end(const std::shared_ptr<http_exchange>& exchange);
  void after(const std::shared_ptr<http_exchange>& exchange, std::chrono::milliseconds delay,
             std::function<void()> callback);
  void close();

  [[nodiscard]] auto executor() { return stream_.get_executor(); }

private:
  enum class phase { idle, reading, answering, lingering, closed };
  using self = std::shared_ptr<http_connection>;
  using error = boost::system::error_code;

  void wait_for_bytes(std::chrono::milliseconds limit);
  void on_bytes(error ec, std::size_t bytes);
  void read_head();
  void on_head(error ec);
  void read_body();
  void dispatch();
  void refuse(http_reply reply);
  /// `accounted`: bytes of it that the exchange has already counted.
  void queue_text(std::string text, std::size_t accounted = 0);
  void write_some();
  void finish_answer();
  void linger();
  void idle_tick();
  void arm_read(std::chrono::milliseconds limit);
  [[nodiscard]] boost::asio::ip::tcp::socket& socket();

  std::shared_ptr<http_shared> server_;
  Stream stream_;
  std::uint64_t id_ = 0;
  std::string peer_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  http_request request_;
  boost::asio::steady_timer read_timer_;
  boost::asio::steady_timer write_timer_;
  boost::asio::steady_timer idle_timer_;
  boost::asio::steady_timer user_timer_;
  phase phase_ = phase::idle;
  std::shared_ptr<http_exchange> exchange_; // of the request being answered
  bool accepted_ = false;                   // a head of this connection was accepted: no stranger
  bool keep_alive_ = true;
  bool version_1_0_ = false;
  bool head_only_ = false;
  bool chunked_ = false;
  bool reading_ = false;     // a read_some is in flight
  bool writing_ = false;     // a write_some is in flight
  bool answer_done_ = false; // the last byte of the answer is queued
  std::size_t lingered_ = 0;
  std::string waiting_; // queued bytes
  std::string flying_;  // bytes being written, from flying_at_
  std::size_t flying_at_ = 0;
  std::string idle_text_;
  std::chrono::milliseconds idle_{0};
  std::chrono::steady_clock::time_point last_write_;
};

} // namespace hexgen::transport
