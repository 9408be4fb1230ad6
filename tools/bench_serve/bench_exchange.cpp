#include "tools/bench_serve/bench_exchange.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <nlohmann/json.hpp>

#include <limits>

namespace hexgen::tools {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using error = boost::system::error_code;

namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

// The server's words, for the table of errors.
std::string message_of(const std::string& body) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (!json.is_object() || !json.contains("error") || !json["error"].is_object())
    return {};
  const auto& message = json["error"].value("message", nlohmann::json());
  return message.is_string() ? message.get<std::string>().substr(0, 120) : "";
}

} // namespace

bench_exchange::bench_exchange(asio::io_context& io, tcp::endpoint to, std::string head_and_body,
                               double timeout_s)
    : to_(std::move(to)), request_(std::move(head_and_body)), timeout_s_(timeout_s), socket_(io),
      timer_(io) {}

void bench_exchange::start(std::optional<tcp::socket> kept, clock::time_point run_begin) {
  sent_ = clock::now();
  last_ = sent_;
  record_.start_s = seconds(sent_ - run_begin);
  timer_.expires_after(
      std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(timeout_s_)));
  timer_.async_wait([me = shared_from_this()](error ec) {
    if (!ec)
      me->stop("timed out");
  });
  if (!kept)
    return connect();
  socket_ = std::move(*kept);
  kept_ = true;
  send();
}

void bench_exchange::stop(const std::string& why) {
  finish(why);
}

void bench_exchange::connect() {
  kept_ = false;
  error ignored;
  socket_.close(ignored);
  socket_.async_connect(to_, [me = shared_from_this()](error ec) {
    if (me->over_)
      return;
    if (ec)
      return me->finish("connect: " + ec.message());
    error no_matter;
    me->socket_.set_option(tcp::no_delay(true), no_matter);
    me->send();
  });
}

void bench_exchange::send() {
  parser_.emplace();
  parser_->body_limit(std::numeric_limits<std::uint64_t>::max()); // the body is taken as it comes
  asio::async_write(
      socket_, asio::buffer(request_), [me = shared_from_this()](error ec, std::size_t) {
        if (me->over_)
          return;
        if (ec)
          return me->kept_ ? me->connect() : me->finish("send: " + ec.message());
        http::async_read_header(
            me->socket_, me->buffer_, *me->parser_, [me](error failed, std::size_t) {
              if (me->over_)
                return;
              if (failed)
                return me->kept_ ? me->connect() : me->finish("read: " + failed.message());
              me->kept_ = false;
              me->read_body();
            });
      });
}

void bench_exchange::read_body() {
  if (parser_->is_done())
    return on_piece({});
  http::async_read_some(socket_, buffer_, *parser_,
                        [me = shared_from_this()](error ec, std::size_t) { me->on_piece(ec); });
}

void bench_exchange::on_piece(error ec) {
  if (over_)
    return;
  const auto now = clock::now();
  auto& body = parser_->get().body();
  const int status = static_cast<int>(parser_->get().result_int());
  if (status == 200) {
    for (const auto& payload : events_.feed(body))
      on_event(payload, now);
    body.clear();
  } else if (body.size() > 64 * 1024) {
    return finish("HTTP " + std::to_string(status));
  }
  if (ec)
    return finish("read: " + ec.message());
  if (!parser_->is_done())
    return read_body();
  if (status != 200) {
    const auto message = message_of(body);
    return finish("HTTP " + std::to_string(status) + (message.empty() ? "" : ": " + message));
  }
  if (!stream_error_.empty())
    return finish("error frame: " + stream_error_);
  finish(saw_done_ && chunks_ > 0 ? "" : "the stream ended without a token or [DONE]");
}

void bench_exchange::on_event(const std::string& payload, clock::time_point now) {
  if (payload == "[DONE]") {
    saw_done_ = true;
    return;
  }
  const auto json = nlohmann::json::parse(payload, nullptr, false);
  if (!json.is_object()) {
    stream_error_ = "not JSON";
    return;
  }
  if (json.contains("error")) {
    stream_error_ = message_of(payload);
    if (stream_error_.empty())
      stream_error_ = "without a message";
    return;
  }
  const auto choices = json.find("choices");
  if (choices != json.end() && choices->is_array() && !choices->empty()) {
    if (chunks_++ == 0)
      record_.ttft_s = seconds(now - sent_);
    else
      record_.inter_token_s.push_back(seconds(now - last_));
    last_ = now;
  }
  const auto usage = json.find("usage");
  if (usage != json.end() && usage->is_object()) {
    const auto count = [&](const char* name) {
      const auto value = usage->find(name);
      return value != usage->end() && value->is_number_integer() ? value->get<int>() : 0;
    };
    record_.prompt_tokens = count("prompt_tokens");
    record_.output_tokens = count("completion_tokens");
  }
}

void bench_exchange::finish(const std::string& why) {
  if (over_)
    return;
  over_ = true;
  timer_.cancel();
  record_.ok = why.empty();
  record_.error = why;
  record_.e2el_s = seconds((record_.ok ? last_ : clock::now()) - sent_);
  if (record_.output_tokens == 0)
    record_.output_tokens = chunks_; // a server that sends no usage
  std::optional<tcp::socket> reusable;
  if (record_.ok && parser_->keep_alive() && buffer_.size() == 0)
    reusable = std::move(socket_);
  else {
    error ignored;
    socket_.close(ignored);
  }
  on_done_(record_, std::move(reusable));
}

} // namespace hexgen::tools
