// Options of the verbs that have an HTTP endpoint.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace CLI {
class App;
} // namespace CLI
namespace hexgen::transport {
struct http_options;
} // namespace hexgen::transport

namespace hexgen::tools {

struct endpoint_flags {
  std::string host = "127.0.0.1", api_key, chat_template, certificate, key_file, journal;
  std::vector<std::string> cors;
  int port = 8000;
  double shutdown_s = 30, recovery_s = 300;

  void add(CLI::App& app);
  /// Others can reach what listens there only with a secret. `fabric_host`: empty: none listens.
  /// Throws usage_error.
  void require_key(const std::string& fabric_host) const;
  /// Throws usage_error.
  void fill(transport::http_options& options) const;
  [[nodiscard]] std::chrono::milliseconds shutdown_timeout() const;
  [[nodiscard]] std::chrono::milliseconds recovery_wait() const;
};

} // namespace hexgen::tools
