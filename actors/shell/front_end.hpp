// What every gateway process has: router, API, HTTP port and the fabric's clients.
#pragma once

#include "actors/openai/http_gateway.hpp"
#include "actors/shell/fabric_clients.hpp"
#include "actors/shell/router_service.hpp"
#include "actors/shell/stop_signal.hpp"

#include <optional>

namespace hexgen::actors {

struct front_end_options {
  transport::http_options http;
  api_options api;
  std::uint64_t incarnation = 0; // request numbers begin from it
  std::chrono::milliseconds shutdown_timeout{30'000};
  std::string journal; // folder of streamed answers; empty: none are kept
  std::chrono::milliseconds recovery_wait{300'000}; // of answers that have begun
};

class front_end {
public:
  front_end(caf::actor_system& system, transport::fabric& fabric, board& shown, event_log log,
            const front_end_options& options, std::shared_ptr<const served_model> model);
  [[nodiscard]] const router_actor& router() const { return router_; }
  [[nodiscard]] std::uint16_t http_port() const { return http_->port(); }
  /// From the transport thread. True when the event was for this front alone.
  bool on_event(const fabric_event& e);
  /// No new requests; what runs has until the time limit, or until a second signal.
  void drain(stop_signal& stop);
  /// Ends the router and the ports. The fabric's events must have stopped.
  void close();

private:
  caf::actor_system& system_;
  event_log log_;
  std::chrono::milliseconds shutdown_timeout_;
  router_service service_;
  router_actor router_;
  serving_metrics metrics_;
  openai_api api_;
  std::optional<http_gateway> http_;
  std::optional<fabric_clients> clients_;
};

/// Opens what a gateway needs of a model: tokenizer and chat template. Throws std::runtime_error.
[[nodiscard]] std::shared_ptr<const served_model>
open_served_model(const std::string& path, const std::string& name, int context,
                  const std::string& chat_template);

} // namespace hexgen::actors
