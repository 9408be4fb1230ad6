// One more gateway: a router and an HTTP port that serve a cluster whose coordinator is elsewhere.
#pragma once

#include "actors/shell/stop_signal.hpp"
#include "transport/fabric.hpp"
#include "transport/http/http_server.hpp"

#include <chrono>
#include <string>
#include <vector>

namespace hexgen::actors {

struct gateway_process_options {
  transport::fabric_options fabric;
  transport::http_options http;
  std::string coordinator; // host:port, or several: coordinator_addresses
  std::string model_path;  // where this machine has the model; empty: the coordinator's path
  std::vector<std::string> model_aliases;
  std::string chat_template;
  std::chrono::milliseconds shutdown_timeout{30'000};
  std::string journal; // folder of streamed answers; empty: none are kept
  std::chrono::milliseconds recovery_wait{300'000}; // of answers that have begun
};

/// Runs until a signal comes, then drains. Returns the exit code.
int run_gateway(const gateway_process_options& options, stop_signal& stop);

} // namespace hexgen::actors
