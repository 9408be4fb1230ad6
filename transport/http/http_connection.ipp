// Bodies of http_connection; included by the one source file of each kind of stream.
#pragma once

#include "transport/http/http_connection.hpp"
#include "transport/http/http_text.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/read.hpp>

#include <limits>
#include <type_traits>

namespace hexgen::transport {

namespace asio = boost::asio;
namespace http = boost::beast::http;

inline constexpr bool is_plain(const asio::ip::tcp::socket*) {
  return true;
}
inline constexpr bool is_plain(const void*) {
  return false;
}

inline constexpr std::size_t read_piece = 16 * 1024;
inline constexpr std::size_t most_lingered = 16 * 1024 * 1024;

/// The thread-safe face of a connection for one request.
template <class Stream>
class connection_responder final : public http_responder {
public:
  connection_responder(std::shared_ptr<http_connection<Stream>> connection,
                       std::shared_ptr<http_exchange> exchange)
      : connection_(std::move(connection)), exchange_(std::move(exchange)) {}
  ~connection_responder() override {
    if (!exchange_->claimed() && !exchange_->over())
      send(http_error(500, "server_error", "the request was dropped without an answer"));
  }
  void send(http_reply reply) override {
    if (exchange_->claim())
      run([reply = std::move(reply)](auto& c, auto& x) mutable { c.send(x, std::move(reply)); });
  }
  void start(int status, std::string type, http_headers headers, std::string idle_text,
             std::chrono::milliseconds idle) override {
    if (exchange_->claim())
      run([=, type = std::move(type), headers = std::move(headers),
           text = std::move(idle_text)](auto& c, auto& x) mutable {
        c.begin(x, status, type, std::move(headers), std::move(text), idle);
      });
  }
  bool write(std::string data) override {
    if (exchange_->over())
      return false;
    if (!exchange_->queue(data.size())) {
      run([](auto& c, auto&) { c.close(); });
      return false;
    }
    run([data = std::move(data)](auto& c, auto& x) mutable { c.write(x, std::move(data)); });
    return true;
  }
  void end() override {
    run([](auto& c, auto& x) { c.end(x); });
  }
  void on_closed(std::function<void()> callback) override {
    exchange_->on_closed(std::move(callback));
  }
  void after(std::chrono::milliseconds delay, std::function<void()> callback) override {
    run([delay, callback = std::move(callback)](auto& c, auto& x) mutable {
      c.after(x, delay, std::move(callback));
    });
  }

private:
  template <class F>
  void run(F f) {
    if (exchange_->over())
      return;
    asio::post(connection_->executor(),
               [c = connection_, x = exchange_, f = std::move(f)]() mutable {
                 if (!x->over())
                   f(*c, x);
               });
  }
  std::shared_ptr<http_connection<Stream>> connection_;
  std::shared_ptr<http_exchange> exchange_;
};

template <class Stream>
http_connection<Stream>::http_connection(std::shared_ptr<http_shared> server,
                                         asio::ip::tcp::socket socket)
    : server_(std::move(server)), stream_([&]() -> Stream {
        if constexpr (is_plain(static_cast<Stream*>(nullptr)))
          return std::move(socket);
        else
          return Stream(std::move(socket), *server_->tls);
      }()),
      read_timer_(stream_.get_executor()), write_timer_(stream_.get_executor()),
      idle_timer_(stream_.get_executor()), user_timer_(stream_.get_executor()) {
  ++server_->connections;
  ++server_->strangers;
}

template <class Stream>
http_connection<Stream>::~http_connection() {
  --server_->connections;
  if (!accepted_)
    --server_->strangers;
  const std::lock_guard lock(server_->mutex);
  server_->all.erase(id_);
}

template <class Stream>
asio::ip::tcp::socket& http_connection<Stream>::socket() {
  if constexpr (is_plain(static_cast<Stream*>(nullptr)))
    return stream_;
  else
    return stream_.next_layer();
}

template <class Stream>
void http_connection<Stream>::start() {
  {
    const std::lock_guard lock(server_->mutex);
    id_ = server_->next_id++;
    server_->all[id_] = this->weak_from_this();
  }
  asio::dispatch(executor(), [me = this->shared_from_this()] {
    error ec;
    me->socket().set_option(asio::ip::tcp::no_delay(true), ec);
    // Bounds what the kernel holds for a client that stops reading.
    me->socket().set_option(asio::socket_base::send_buffer_size(256 * 1024), ec);
    const auto end = me->socket().remote_endpoint(ec);
    if (!ec)
      me->peer_ = end.address().to_string() + ":" + std::to_string(end.port());
    if constexpr (is_plain(static_cast<Stream*>(nullptr))) {
      me->wait_for_bytes(me->server_->options.limits.head_time);
    } else {
      me->arm_read(me->server_->options.limits.head_time);
      me->stream_.async_handshake(asio::ssl::stream_base::server, [me](error failed) {
        if (failed)
          me->close();
        else
          me->wait_for_bytes(me->server_->options.limits.head_time);
      });
    }
  });
}

template <class Stream>
void http_connection<Stream>::drain() {
  asio::post(executor(), [me = this->shared_from_this()] {
    me->keep_alive_ = false;
    if (me->phase_ == phase::idle && me->buffer_.size() == 0)
      me->close();
  });
}

template <class Stream>
void http_connection<Stream>::kill() {
  asio::post(executor(), [me = this->shared_from_this()] { me->close(); });
}

// Reads on while a request is being answered too: that is how a client that hangs up is noticed.
template <class Stream>
void http_connection<Stream>::wait_for_bytes(std::chrono::milliseconds limit) {
  if (limit.count() > 0)
    arm_read(limit);
  // A client that already sent its next request waits for the answer to this one: not watched.
  if (reading_ || buffer_.size() > 0)
    return;
  reading_ = true;
  const auto piece = phase_ == phase::idle ? std::size_t{2048} : read_piece;
  stream_.async_read_some(
      buffer_.prepare(piece),
      [me = this->shared_from_this()](error ec, std::size_t bytes) { me->on_bytes(ec, bytes); });
}

template <class Stream>
void http_connection<Stream>::on_bytes(error ec, std::size_t bytes) {
  reading_ = false;
  if (phase_ == phase::closed)
    return;
  if (ec)
    return close();
  if (phase_ == phase::lingering) {
    lingered_ += bytes;
    if (lingered_ > most_lingered)
      return close();
    return wait_for_bytes({});
  }
  buffer_.commit(bytes);
  if (phase_ == phase::idle)
    read_head();
}

template <class Stream>
void http_connection<Stream>::read_head() {
  phase_ = phase::reading;
  arm_read(server_->options.limits.head_time);
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(server_->options.limits.header));
  // Checked in on_head, after the request was let in. (boost::none does not mean "no limit" to the
  // Content-Length check of Boost 1.74.)
  parser_->body_limit(std::numeric_limits<std::uint64_t>::max());
  http::async_read_header(
      stream_, buffer_, *parser_,
      [me = this->shared_from_this()](error ec, std::size_t) { me->on_head(ec); });
}

template <class Stream>
void http_connection<Stream>::on_head(error ec) {
  if (phase_ == phase::closed)
    return;
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow)
    return refuse(http_error(431, "invalid_request_error", "the request's header is too large"));
  if (ec && ec.category() == http::make_error_code(http::error::bad_method).category() &&
      ec != http::error::end_of_stream && ec != http::error::partial_message)
    return refuse(http_error(400, "invalid_request_error", "bad HTTP request: " + ec.message()));
  if (ec)
    return close();
  const auto& head = parser_->get();
  request_ = {};
  request_.method = std::string(head.method_string());
  request_.target = std::string(head.target());
  request_.path = request_.target.substr(0, request_.target.find('?'));
  request_.peer = peer_;
  for (const auto& field : head)
    request_.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  version_1_0_ = head.version() < 11;
  head_only_ = head.method() == http::verb::head;
  keep_alive_ = parser_->keep_alive() && !server_->draining;
  if (request_.method == "OPTIONS") {
    http_reply reply;
    reply.status = 204;
    reply.content_type.clear();
    reply.headers = {{"Allow", "GET, POST, HEAD, OPTIONS"},
                     {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
                     {"Access-Control-Allow-Headers", "Authorization, Content-Type, x-request-id, "
                                                      "x-slo-ttft-ms, x-slo-tpot-ms"},
                     {"Access-Control-Max-Age", "600"}};
    return refuse(std::move(reply));
  }
  if (server_->check)
    if (auto reply = server_->check(request_))
      return refuse(std::move(*reply));
  if (!accepted_) {
    accepted_ = true;
    --server_->strangers;
  }
  const auto limit = server_->options.limits.body;
  if (const auto length = parser_->content_length(); length && *length > limit)
    return refuse(
        http_error(413, "invalid_request_error",
                   "the request's body is over the limit of " + std::to_string(limit) + " bytes"));
  parser_->body_limit(limit);
  if (boost::beast::iequals(head[http::field::expect], "100-continue") && !version_1_0_)
    queue_text("HTTP/1.1 100 Continue\r\n\r\n");
  read_body();
}

template <class Stream>
void http_connection<Stream>::read_body() {
  arm_read(server_->options.limits.body_time);
  http::async_read(
      stream_, buffer_, *parser_, [me = this->shared_from_this()](error ec, std::size_t) {
        if (me->phase_ == phase::closed)
          return;
        if (ec == http::error::body_limit)
          return me->refuse(http_error(413, "invalid_request_error",
                                       "the request's body is over the limit of " +
                                           std::to_string(me->server_->options.limits.body) +
                                           " bytes"));
        if (ec && ec.category() == http::make_error_code(http::error::bad_method).category() &&
            ec != http::error::end_of_stream && ec != http::error::partial_message)
          return me->refuse(
              http_error(400, "invalid_request_error", "bad HTTP request: " + ec.message()));
        if (ec)
          return me->close();
        me->request_.body = std::move(me->parser_->get().body());
        me->dispatch();
      });
}

template <class Stream>
void http_connection<Stream>::dispatch() {
  parser_.reset();
  read_timer_.cancel();
  phase_ = phase::answering;
  answer_done_ = false;
  exchange_ = std::make_shared<http_exchange>(server_->options.limits.stream_buffer);
  auto responder =
      std::make_shared<connection_responder<Stream>>(this->shared_from_this(), exchange_);
  wait_for_bytes({});
  try {
    server_->on_request(std::move(request_), responder);
  } catch (const std::exception& e) {
    responder->send(http_error(500, "server_error", e.what()));
  }
}

// Answers without having read the body, so the connection cannot be used again when there is one.
template <class Stream>
void http_connection<Stream>::refuse(http_reply reply) {
  if (parser_ && !(parser_->is_header_done() && parser_->content_length().value_or(0) == 0 &&
                   !parser_->chunked()))
    keep_alive_ = false;
  if (parser_ && !parser_->is_header_done())
    head_only_ = false;
  parser_.reset();
  phase_ = phase::answering;
  answer_done_ = false;
  exchange_ = std::make_shared<http_exchange>(server_->options.limits.stream_buffer);
  exchange_->claim();
  send(exchange_, std::move(reply));
}

template <class Stream>
void http_connection<Stream>::send(const std::shared_ptr<http_exchange>& exchange,
                                   http_reply reply) {
  if (exchange != exchange_ || phase_ != phase::answering)
    return;
  keep_alive_ = keep_alive_ && !server_->draining;
  auto cors = cors_headers(server_->options.cors_origins, find_header(request_.headers, "Origin"));
  reply.headers.insert(reply.headers.end(), cors.begin(), cors.end());
  std::string text = http_head(reply.status, reply.content_type, reply.headers, reply.body.size(),
                               false, keep_alive_);
  if (!head_only_ && reply.status != 204)
    text += reply.body;
  answer_done_ = true;
  queue_text(std::move(text));
}

template <class Stream>
void http_connection<Stream>::begin(const std::shared_ptr<http_exchange>& exchange, int status,
                                    const std::string& content_type, http_headers headers,
                                    std::string idle_text, std::chrono::milliseconds idle) {
  if (exchange != exchange_ || phase_ != phase::answering)
    return;
  chunked_ = !version_1_0_;
  keep_alive_ = keep_alive_ && chunked_ && !server_->draining;
  auto cors = cors_headers(server_->options.cors_origins, find_header(request_.headers, "Origin"));
  headers.insert(headers.end(), cors.begin(), cors.end());
  idle_text_ = std::move(idle_text);
  idle_ = idle;
  queue_text(http_head(status, content_type, headers, std::nullopt, chunked_, keep_alive_));
  if (!idle_text_.empty() && idle_.count() > 0)
    idle_tick();
}

template <class Stream>
void http_connection<Stream>::idle_tick() {
  idle_timer_.expires_at(last_write_ + idle_);
  idle_timer_.async_wait([me = this->shared_from_this(), x = exchange_](error ec) {
    if (ec || x->over() || x != me->exchange_ || me->answer_done_)
      return;
    if (std::chrono::steady_clock::now() >= me->last_write_ + me->idle_ && !me->writing_)
      me->queue_text(me->chunked_ ? http_chunk(me->idle_text_) : me->idle_text_);
    else if (me->writing_)
      me->last_write_ = std::chrono::steady_clock::now(); // the client is slow: nothing to add
    me->idle_tick();
  });
}

template <class Stream>
void http_connection<Stream>::write(const std::shared_ptr<http_exchange>& exchange,
                                    std::string data) {
  if (exchange != exchange_ || phase_ != phase::answering || answer_done_)
    return;
  if (head_only_) {
    exchange->sent(data.size());
    return;
  }
  const auto bytes = data.size();
  queue_text(chunked_ ? http_chunk(data) : std::move(data), bytes);
}

template <class Stream>
void http_connection<Stream>::end(const std::shared_ptr<http_exchange>& exchange) {
  if (exchange != exchange_ || phase_ != phase::answering || answer_done_)
    return;
  answer_done_ = true;
  if (chunked_ && !head_only_)
    queue_text("0\r\n\r\n");
  else if (!writing_)
    finish_answer();
}

template <class Stream>
void http_connection<Stream>::after(const std::shared_ptr<http_exchange>& exchange,
                                    std::chrono::milliseconds delay,
                                    std::function<void()> callback) {
  if (exchange != exchange_)
    return;
  user_timer_.expires_after(delay);
  user_timer_.async_wait([exchange, callback = std::move(callback)](error ec) {
    if (!ec && !exchange->over())
      callback();
  });
}

template <class Stream>
void http_connection<Stream>::queue_text(std::string text, std::size_t accounted) {
  last_write_ = std::chrono::steady_clock::now();
  if (exchange_)
    exchange_->queue(text.size() - accounted);
  waiting_ += text;
  if (!writing_)
    write_some();
}

template <class Stream>
void http_connection<Stream>::write_some() {
  if (flying_at_ == flying_.size()) {
    flying_.clear();
    flying_at_ = 0;
    std::swap(flying_, waiting_);
  }
  writing_ = true;
  write_timer_.expires_after(server_->options.limits.write_time);
  write_timer_.async_wait([me = this->shared_from_this()](error ec) {
    if (!ec && std::chrono::steady_clock::now() >= me->write_timer_.expiry())
      me->close();
  });
  stream_.async_write_some(asio::buffer(flying_.data() + flying_at_, flying_.size() - flying_at_),
                           [me = this->shared_from_this()](error ec, std::size_t bytes) {
                             me->writing_ = false;
                             if (me->phase_ == phase::closed)
                               return;
                             me->write_timer_.cancel();
                             if (ec)
                               return me->close();
                             me->flying_at_ += bytes;
                             if (me->exchange_)
                               me->exchange_->sent(bytes);
                             if (me->flying_at_ < me->flying_.size() || !me->waiting_.empty())
                               return me->write_some();
                             if (me->phase_ == phase::answering && me->answer_done_)
                               me->finish_answer();
                           });
}

template <class Stream>
void http_connection<Stream>::finish_answer() {
  idle_timer_.cancel();
  user_timer_.cancel();
  chunked_ = false;
  std::exchange(exchange_, nullptr)->complete();
  if (!keep_alive_)
    return linger();
  phase_ = phase::idle;
  if (buffer_.size() > 0)
    return read_head();
  if (!reading_)
    buffer_ = {}; // an idle connection holds no memory
  wait_for_bytes(server_->options.limits.idle_time);
}

// Closing at once would make the kernel reset the connection when unread bytes are left, and the
// client would lose the answer: stop sending, read on for a while, then close.
template <class Stream>
void http_connection<Stream>::linger() {
  phase_ = phase::lingering;
  buffer_.clear();
  arm_read(std::chrono::seconds(2));
  error ec;
  if constexpr (is_plain(static_cast<Stream*>(nullptr))) {
    socket().shutdown(asio::ip::tcp::socket::shutdown_send, ec);
    wait_for_bytes({});
  } else {
    stream_.async_shutdown([me = this->shared_from_this()](error) { me->close(); });
  }
}

template <class Stream>
void http_connection<Stream>::arm_read(std::chrono::milliseconds limit) {
  read_timer_.expires_after(limit);
  read_timer_.async_wait([me = this->shared_from_this()](error ec) {
    if (!ec && me->phase_ != phase::answering &&
        std::chrono::steady_clock::now() >= me->read_timer_.expiry())
      me->close();
  });
}

template <class Stream>
void http_connection<Stream>::close() {
  if (phase_ == phase::closed)
    return;
  phase_ = phase::closed;
  read_timer_.cancel();
  write_timer_.cancel();
  idle_timer_.cancel();
  user_timer_.cancel();
  error ec;
  socket().close(ec);
  waiting_.clear();
  if (const auto exchange = std::exchange(exchange_, nullptr))
    exchange->abandon();
}

} // namespace hexgen::transport
