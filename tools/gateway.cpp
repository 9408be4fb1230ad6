// hexgen gateway --join HOST:PORT: one more gateway and router.
#include "actors/shell/gateway_process.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>
#include <unistd.h>

#include <memory>

namespace hexgen::tools {
namespace {

struct gateway_flags {
  std::string join, name, model, chat_template, api_key, host = "127.0.0.1", fabric_host;
  std::vector<std::string> cors;
  int port = 8000, fabric_port = 0;
  double shutdown_s = 30, recovery_s = 300;
  std::string journal;
  std::string certificate, key_file;
  fabric_flags fabric;
};

int gateway(const gateway_flags& f) {
  actors::stop_signal stop; // before any thread
  if (f.api_key.empty() && !is_loopback(f.host))
    throw usage_error("an address that others can reach (" + f.host +
                      ") needs a client's secret: give --api-key or HEXGEN_API_KEY");
  actors::gateway_process_options o;
  f.fabric.fill(o.fabric);
  o.fabric.name =
      f.name.empty() ? "gateway-" + host_name() + "-" + std::to_string(::getpid()) : f.name;
  o.fabric.cluster_token = cluster_token(f.fabric.token_file, false);
  o.fabric.api_key = f.api_key;
  o.fabric.listen_host = f.fabric_host;
  o.fabric.listen_port = f.fabric_port;
  o.coordinator = text_of(parse_addresses(f.join));
  o.http.host = f.host;
  o.http.port = static_cast<std::uint16_t>(f.port);
  o.http.cors_origins = f.cors;
  if (f.certificate.empty() != f.key_file.empty())
    throw usage_error("--ssl-certfile and --ssl-keyfile go together");
  o.http.tls_certificate_file = f.certificate;
  o.http.tls_key_file = f.key_file;
  o.model_path = f.model;
  o.chat_template = f.chat_template;
  o.shutdown_timeout = std::chrono::milliseconds(static_cast<std::int64_t>(f.shutdown_s * 1000));
  o.journal = f.journal;
  o.recovery_wait = std::chrono::milliseconds(static_cast<std::int64_t>(f.recovery_s * 1000));
  return actors::run_gateway(o, stop);
}

} // namespace

void add_gateway(CLI::App& app, action& chosen) {
  auto f = std::make_shared<gateway_flags>();
  auto* verb = app.add_subcommand("gateway", "One more HTTP endpoint for a cluster that runs "
                                             "elsewhere; any number may run");
  auto env = [](CLI::Option* o) { return with_environment(o)->capture_default_str(); };
  env(verb->add_option("--join", f->join, "HOST:PORT of hexgen serve's fabric"))->required();
  env(verb->add_option("--name", f->name, "This gateway's name"));
  env(verb->add_option("--host", f->host, "HTTP address"));
  env(verb->add_option("--port", f->port, "HTTP port; 0: any free one, which is printed"))
      ->check(CLI::Range(0, 65535));
  env(verb->add_option("--fabric-host", f->fabric_host,
                       "Address for fabric clients (default: none)"));
  env(verb->add_option("--fabric-port", f->fabric_port, "Its port; 0: any free one"))
      ->check(CLI::Range(0, 65535));
  env(verb->add_option("--model", f->model,
                       "Where this machine has the model (default: "
                       "as join; it reads the tokenizer alone)"));
  env(verb->add_option("--chat-template", f->chat_template, "Template's name"));
  env(verb->add_option("--api-key", f->api_key, "The clients' secret"));
  env(verb->add_option("--cors-origin", f->cors, "Origin that browsers may call from; '*': any"))
      ->allow_extra_args(false);
  env(verb->add_option("--ssl-certfile", f->certificate, "HTTPS: certificate chain, PEM"));
  env(verb->add_option("--ssl-keyfile", f->key_file, "HTTPS: its key, PEM"));
  env(verb->add_option("--journal", f->journal, journal_help));
  env(verb->add_option("--recovery-wait", f->recovery_s,
                       "Seconds that an answer that has begun waits for devices to go on with"))
      ->check(CLI::Range(0.0, 86400.0));
  env(verb->add_option("--shutdown-timeout", f->shutdown_s,
                       "Seconds that running requests have after SIGTERM"))
      ->check(CLI::Range(0.0, 3600.0));
  f->fabric.add(*verb);
  verb->callback([f, &chosen] { chosen = [f] { return gateway(*f); }; });
}

} // namespace hexgen::tools
