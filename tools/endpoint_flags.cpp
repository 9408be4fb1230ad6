#include "tools/endpoint_flags.hpp"

#include "tools/settings.hpp"
#include "transport/http/http_server.hpp"

#include <CLI/CLI.hpp>

namespace hexgen::tools {
namespace {

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

} // namespace

void endpoint_flags::add(CLI::App& app) {
  auto env = [](CLI::Option* o) {
    return with_environment(o)->capture_default_str()->group("Endpoint");
  };
  env(app.add_option("--host", host, "HTTP address"));
  env(app.add_option("--port", port, "HTTP port; 0: any free one, which is printed"))
      ->check(CLI::Range(0, 65535));
  env(app.add_option("--api-key", api_key,
                     "The clients' secret; needed on every address but loopback"));
  env(app.add_option("--chat-template", chat_template,
                     "Template's name, where the model's own is not known"));
  env(app.add_option("--cors-origin", cors, "Origin that browsers may call from; '*': any"))
      ->allow_extra_args(false);
  env(app.add_option("--ssl-certfile", certificate, "HTTPS: certificate chain, PEM"));
  env(app.add_option("--ssl-keyfile", key_file, "HTTPS: its key, PEM"));
  env(app.add_option("--journal", journal,
                     "Folder that keeps streamed answers, also over a restart: a client that "
                     "returns with its x-request-id and Last-Event-ID gets the rest"));
  env(app.add_option("--recovery-wait", recovery_s,
                     "Seconds that an answer that has begun waits for devices to go on with"))
      ->check(CLI::Range(0.0, 86400.0));
  env(app.add_option("--shutdown-timeout", shutdown_s,
                     "Seconds that running requests have after SIGTERM"))
      ->check(CLI::Range(0.0, 3600.0));
}

void endpoint_flags::require_key(const std::string& fabric_host) const {
  if (!api_key.empty())
    return;
  for (const auto& address : {host, fabric_host})
    if (!address.empty() && !is_loopback(address))
      throw usage_error("an address that others can reach (" + address +
                        ") needs a client's secret: give --api-key or HEXGEN_API_KEY");
}

void endpoint_flags::fill(transport::http_options& o) const {
  if (certificate.empty() != key_file.empty())
    throw usage_error("--ssl-certfile and --ssl-keyfile go together");
  o.host = host;
  o.port = static_cast<std::uint16_t>(port);
  o.cors_origins = cors;
  o.tls_certificate_file = certificate;
  o.tls_key_file = key_file;
}

std::chrono::milliseconds endpoint_flags::shutdown_timeout() const {
  return milliseconds(shutdown_s);
}

std::chrono::milliseconds endpoint_flags::recovery_wait() const {
  return milliseconds(recovery_s);
}

} // namespace hexgen::tools
