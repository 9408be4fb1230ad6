#include "actors/openai/http_gateway.hpp"

#include <mutex>

namespace hexgen::actors {

namespace {

using transport::http_reply;
using transport::http_responder;

/// Server-sent events over one HTTP answer.
class http_sink final : public reply_sink, public std::enable_shared_from_this<http_sink> {
public:
  http_sink(std::shared_ptr<http_responder> to, serving_metrics& metrics, std::string path,
            std::string method, std::chrono::milliseconds ping)
      : to_(std::move(to)), metrics_(metrics), path_(std::move(path)), method_(std::move(method)),
        ping_(ping) {}

  void whole(http_reply reply) override {
    const std::lock_guard lock(mutex_);
    if (!opened_) {
      metrics_.http_request(path_, method_, reply.status);
      to_->send(std::move(reply));
      opened_ = true; // nothing may be opened after it
      return;
    }
    to_->write("data: " + reply.body + "\n\ndata: [DONE]\n\n");
    to_->end();
  }

  void expect_stream(const transport::http_headers& headers) override {
    to_->after(ping_, [weak = weak_from_this(), headers] {
      if (const auto me = weak.lock())
        me->open(headers);
    });
  }

  void open(const transport::http_headers& headers) override {
    const std::lock_guard lock(mutex_);
    if (opened_)
      return;
    opened_ = true;
    metrics_.http_request(path_, method_, 200);
    auto all = headers;
    all.emplace_back("Cache-Control", "no-cache");
    all.emplace_back("X-Accel-Buffering", "no"); // proxies pass each token on at once
    to_->start(200, "text/event-stream; charset=utf-8", std::move(all), ": ping\n\n", ping_);
  }

  bool data(std::string payload) override { return to_->write("data: " + payload + "\n\n"); }
  bool event(std::uint64_t number, std::string payload) override {
    return to_->write("id: " + std::to_string(number) + "\ndata: " + payload + "\n\n");
  }
  void close() override { to_->end(); }
  void on_closed(std::function<void()> callback) override { to_->on_closed(std::move(callback)); }

private:
  const std::shared_ptr<http_responder> to_;
  serving_metrics& metrics_;
  const std::string path_;
  const std::string method_;
  const std::chrono::milliseconds ping_;
  std::mutex mutex_;
  bool opened_ = false;
};

} // namespace

http_gateway::http_gateway(transport::http_options options, openai_api& api,
                           serving_metrics& metrics, std::chrono::milliseconds ping)
    : server_(
          std::move(options),
          [&api, &metrics, ping](transport::http_request request,
                                 std::shared_ptr<http_responder> to) {
            auto sink = std::make_shared<http_sink>(std::move(to), metrics, request.path,
                                                    request.method, ping);
            api_request call;
            call.method = std::move(request.method);
            call.path = std::move(request.path);
            call.body = std::move(request.body);
            call.headers = std::move(request.headers);
            api.handle(call, std::move(sink));
          },
          [&api, &metrics](const transport::http_request& head) {
            auto refusal = api.check_key(head.method, head.path, head.headers);
            if (refusal)
              metrics.http_request(head.path, head.method, refusal->status);
            return refusal;
          }) {}

} // namespace hexgen::actors
