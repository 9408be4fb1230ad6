// One streamed completion on one connection: sends it, measures it, gives the connection back.
#pragma once

#include "tools/bench_serve/bench_report.hpp"
#include "tools/bench_serve/sse_reader.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <functional>
#include <memory>
#include <optional>

namespace hexgen::tools {

class bench_exchange : public std::enable_shared_from_this<bench_exchange> {
public:
  using tcp = boost::asio::ip::tcp;
  using clock = std::chrono::steady_clock;
  /// `reusable`: a connection that can be used again, or nothing.
  using done = std::function<void(const bench_record&, std::optional<tcp::socket> reusable)>;

  /// `head_and_body`: the whole HTTP request.
  bench_exchange(boost::asio::io_context& io, tcp::endpoint to, std::string head_and_body,
                 double timeout_s);
  void on_done(done callback) { on_done_ = std::move(callback); }
  /// `kept`: a connection from before; when it turns out to be closed a new one is made.
  void start(std::optional<tcp::socket> kept, clock::time_point run_begin);
  void stop(const std::string& why);

private:
  void connect();
  void send();
  void read_body();
  void on_piece(boost::system::error_code ec);
  void on_event(const std::string& payload, clock::time_point now);
  void finish(const std::string& error);

  tcp::endpoint to_;
  std::string request_;
  double timeout_s_;
  done on_done_;
  tcp::socket socket_;
  boost::asio::steady_timer timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::response_parser<boost::beast::http::string_body>> parser_;
  sse_reader events_;
  bench_record record_;
  clock::time_point sent_, last_;
  int chunks_ = 0;
  bool kept_ = false; // on a kept connection, nothing read yet
  bool over_ = false;
  bool saw_done_ = false;
  std::string stream_error_;
};

} // namespace hexgen::tools
