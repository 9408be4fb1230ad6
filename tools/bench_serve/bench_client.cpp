#include "tools/bench_serve/bench_client.hpp"

#include "tools/bench_serve/bench_exchange.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <csignal>
#include <set>
#include <stdexcept>

namespace hexgen::tools {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;
using clock = std::chrono::steady_clock;
using error = boost::system::error_code;

namespace {

std::string where(const bench_options& options) {
  return options.host + ":" + std::to_string(options.port);
}

/// An address that something listens on.
tcp::endpoint find_endpoint(asio::io_context& io, const bench_options& options) {
  try {
    tcp::socket socket(io);
    return asio::connect(socket,
                         tcp::resolver(io).resolve(options.host, std::to_string(options.port)));
  } catch (const boost::system::system_error& e) {
    throw std::runtime_error("cannot reach " + where(options) + ": " + e.code().message());
  }
}

std::string head_text(const bench_options& options, const std::string& verb_and_path) {
  std::string text = verb_and_path + " HTTP/1.1\r\nHost: " + where(options) + "\r\n";
  if (!options.api_key.empty())
    text += "Authorization: Bearer " + options.api_key + "\r\n";
  return text;
}

std::string request_text(const bench_options& options, const bench_request& request) {
  nlohmann::json body;
  body["model"] = options.model;
  body["prompt"] = request.prompt;
  body["max_tokens"] = request.output_len;
  body["temperature"] = options.temperature;
  body["ignore_eos"] = options.ignore_eos;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const auto text = body.dump();
  auto head = head_text(options, "POST /v1/completions");
  if (options.slo_ttft_ms > 0)
    head += "x-slo-ttft-ms: " + std::to_string(options.slo_ttft_ms) + "\r\n";
  if (options.slo_tpot_ms > 0)
    head += "x-slo-tpot-ms: " + std::to_string(options.slo_tpot_ms) + "\r\n";
  return head + "Content-Type: application/json\r\nContent-Length: " + std::to_string(text.size()) +
         "\r\n\r\n" + text;
}

/// One run: hands out requests when their time has come and a place is free.
class runner {
public:
  runner(const bench_options& options, const std::vector<bench_request>& workload,
         const std::function<void(const bench_progress&)>& progress)
      : options_(options), workload_(workload), progress_(progress),
        to_(find_endpoint(io_, options)), records_(workload.size()), sent_(workload.size()) {}

  bench_run run() {
    begin_ = clock::now();
    signals_.async_wait([this](error ec, int) {
      if (!ec)
        interrupt();
    });
    tick();
    next();
    io_.run();
    bench_run out;
    out.interrupted = interrupted_;
    double first = 0, last = 0;
    for (std::size_t i = 0; i < workload_.size(); ++i) {
      if (!sent_[i])
        continue;
      const auto& one = records_[i];
      first = out.records.empty() ? one.start_s : std::min(first, one.start_s);
      last = std::max(last, one.start_s + one.e2el_s);
      out.records.push_back(one);
    }
    out.duration_s = last - first;
    return out;
  }

private:
  void next() {
    while (!interrupted_ && at_ < workload_.size()) {
      const auto due = begin_ + std::chrono::duration_cast<clock::duration>(
                                    std::chrono::duration<double>(workload_[at_].at_s));
      if (options_.max_concurrency > 0 &&
          static_cast<int>(running_.size()) >= options_.max_concurrency)
        return; // the end of one calls again
      if (due > clock::now()) {
        arrival_.expires_at(due);
        arrival_.async_wait([this](error ec) {
          if (!ec)
            next();
        });
        return;
      }
      send(at_++);
    }
    end_if_done();
  }

  void send(std::size_t i) {
    auto exchange = std::make_shared<bench_exchange>(io_, to_, request_text(options_, workload_[i]),
                                                     options_.timeout_s);
    sent_[i] = true;
    running_.insert(exchange);
    std::optional<tcp::socket> kept;
    if (!idle_.empty()) {
      kept = std::move(idle_.back());
      idle_.pop_back();
    }
    exchange->on_done([this, i, weak = std::weak_ptr(exchange)](
                          const bench_record& record, std::optional<tcp::socket> reusable) {
      records_[i] = record;
      ++(record.ok ? done_ : failed_);
      if (reusable)
        idle_.push_back(std::move(*reusable));
      running_.erase(weak.lock());
      next();
    });
    exchange->start(std::move(kept), begin_);
  }

  void interrupt() {
    interrupted_ = true;
    arrival_.cancel();
    const auto all = running_;
    for (const auto& one : all)
      one->stop("interrupted");
    end_if_done();
  }

  void end_if_done() {
    if (!running_.empty() || (at_ < workload_.size() && !interrupted_))
      return;
    ticker_.cancel();
    signals_.cancel();
    report();
  }

  void tick() {
    report();
    ticker_.expires_after(std::chrono::milliseconds(200));
    ticker_.async_wait([this](error ec) {
      if (!ec)
        tick();
    });
  }

  void report() {
    if (progress_)
      progress_({static_cast<int>(workload_.size()), done_, failed_,
                 static_cast<int>(running_.size()),
                 std::chrono::duration<double>(clock::now() - begin_).count()});
  }

  const bench_options& options_;
  const std::vector<bench_request>& workload_;
  const std::function<void(const bench_progress&)>& progress_;
  asio::io_context io_;
  tcp::endpoint to_;
  asio::steady_timer arrival_{io_}, ticker_{io_};
  asio::signal_set signals_{io_, SIGINT};
  clock::time_point begin_;
  std::vector<bench_record> records_;
  std::vector<bool> sent_;
  std::set<std::shared_ptr<bench_exchange>> running_;
  std::vector<tcp::socket> idle_;
  std::size_t at_ = 0;
  int done_ = 0, failed_ = 0;
  bool interrupted_ = false;
};

} // namespace

bench_run run_workload(const bench_options& options, const std::vector<bench_request>& workload,
                       const std::function<void(const bench_progress&)>& progress) {
  return runner(options, workload, progress).run();
}

std::string first_model(const bench_options& options) {
  namespace http = boost::beast::http;
  asio::io_context io;
  tcp::socket socket(io);
  try {
    socket.connect(find_endpoint(io, options));
    const auto text = head_text(options, "GET /v1/models") + "Connection: close\r\n\r\n";
    asio::write(socket, asio::buffer(text));
    boost::beast::flat_buffer buffer;
    http::response<http::string_body> reply;
    http::read(socket, buffer, reply);
    if (reply.result_int() != 200)
      throw std::runtime_error(where(options) + "/v1/models answered HTTP " +
                               std::to_string(reply.result_int()));
    const auto list = nlohmann::json::parse(reply.body());
    return list.at("data").at(0).at("id").get<std::string>();
  } catch (const boost::system::system_error& e) {
    throw std::runtime_error("cannot reach " + where(options) + ": " + e.code().message());
  } catch (const nlohmann::json::exception&) {
    throw std::runtime_error(where(options) + "/v1/models names no model; give --model");
  }
}

} // namespace hexgen::tools
