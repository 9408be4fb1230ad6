// The OpenAI-compatible API over a generation_service: paths and JSON in, JSON out. It knows
// neither HTTP connections nor actors; both the HTTP gateway and the fabric's clients call it.
#pragma once

#include "actors/core/generation.hpp"
#include "actors/metrics/serving_metrics.hpp"
#include "actors/openai/reply_sink.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace hexgen::actors {

class answer_journal;

struct api_request {
  std::string method = "POST";
  std::string path;
  std::string body;
  transport::http_headers headers;
};

struct api_options {
  std::string api_key; // empty: none is needed
  std::string version = "0.1.0";
  std::vector<std::string> aliases; // further names of the served model
  std::string model_root;           // `root` of /v1/models; empty: the model's name
  /// Where streams of one choice are kept that name themselves (x-request-id); may be empty.
  std::shared_ptr<answer_journal> journal;
  std::function<void(const std::string&)> log; // warnings, one line each; may be empty
};

/// Thread-safe. Outlives every request that it was given; so must the service and the metrics.
class openai_api {
public:
  openai_api(api_options options, generation_service& service, serving_metrics& metrics);
  ~openai_api();

  /// Refuses a request that lacks the key, from its head alone. /health needs none.
  [[nodiscard]] std::optional<transport::http_reply>
  check_key(const std::string& method, const std::string& path,
            const transport::http_headers& headers) const;

  /// Answers through `sink`, now or later. Does not check the key. Never throws.
  void handle(const api_request& request, std::shared_ptr<reply_sink> sink);

  /// From now on /health says 503 and new generations are refused; running ones go on.
  void drain();
  /// Chat and completion requests under way.
  [[nodiscard]] int running() const;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace hexgen::actors
