// Coordinator and gateway as a process, with a supervised child for this machine's own devices.
#pragma once

#include "actors/core/coordinator_state.hpp"
#include "actors/shell/stop_signal.hpp"
#include "transport/fabric.hpp"
#include "transport/http/http_post.hpp"
#include "transport/http/http_server.hpp"

#include <chrono>
#include <string>
#include <vector>

namespace hexgen::actors {

struct serve_process_options {
  transport::fabric_options fabric;
  transport::http_options http;
  std::string model_path;
  std::string model_name; // as served
  std::vector<std::string> model_aliases;
  std::string chat_template;       // empty: the model's own
  int max_sequence = 0;            // tokens; 0: the model's own context
  int kv_tokens = 2048;            // positions that a replica must hold at least
  coordinator_options coordinator; // model, shape and goal are filled in here
  std::chrono::milliseconds shutdown_timeout{30'000};
  /// http_peer::of: coordinator only while it holds the lease there; empty: at once.
  std::string etcd;
  transport::http_peer::tls_files etcd_files;
  std::string etcd_key; // of the lease
  std::string journal;  // folder of streamed answers; empty: none are kept
  std::chrono::milliseconds recovery_wait{300'000}; // of answers that have begun
  std::vector<std::string> child; // argv of `join`, without the address; empty: no own devices
  std::vector<std::string> child_environment;
};

/// Runs until a signal comes, then drains. Returns the exit code. Throws std::runtime_error when it
/// cannot start (model, address in use).
int run_serve(serve_process_options options, stop_signal& stop);

} // namespace hexgen::actors
