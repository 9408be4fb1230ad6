// The API on an HTTP port.
#pragma once

#include "actors/openai/openai_api.hpp"
#include "transport/http/http_server.hpp"

#include <chrono>

namespace hexgen::actors {

class http_gateway {
public:
  /// `ping`: after this long without a token a stream gets a comment line, and a client that waits
  /// for its first token gets the head. Throws std::runtime_error when it cannot listen.
  http_gateway(transport::http_options options, openai_api& api, serving_metrics& metrics,
               std::chrono::milliseconds ping = std::chrono::seconds(15));

  [[nodiscard]] std::uint16_t port() const { return server_.port(); }
  [[nodiscard]] std::size_t connections() const { return server_.connections(); }
  /// For a clean end: openai_api::drain() first, then this when nothing runs any more.
  void stop(std::chrono::milliseconds deadline) { server_.stop(deadline); }

private:
  transport::http_server server_;
};

} // namespace hexgen::actors
