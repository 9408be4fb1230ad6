// hexgen gateway --join HOST:PORT: one more gateway and router.
#include "actors/shell/gateway_process.hpp"
#include "tools/endpoint_flags.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>
#include <unistd.h>

#include <memory>

namespace hexgen::tools {
namespace {

struct gateway_flags {
  std::string join, name, model, fabric_host;
  int fabric_port = 0;
  endpoint_flags endpoint;
  fabric_flags fabric;
};

int gateway(const gateway_flags& f) {
  actors::stop_signal stop; // before any thread
  f.endpoint.require_key(f.fabric_host);
  actors::gateway_process_options o;
  f.fabric.fill(o.fabric);
  o.fabric.name =
      f.name.empty() ? "gateway-" + host_name() + "-" + std::to_string(::getpid()) : f.name;
  o.fabric.cluster_token = cluster_token(f.fabric.token_file, false);
  o.fabric.api_key = f.endpoint.api_key;
  o.fabric.listen_host = f.fabric_host;
  o.fabric.listen_port = f.fabric_port;
  o.coordinator = text_of(parse_addresses(f.join));
  f.endpoint.fill(o.http);
  o.model_path = f.model;
  o.chat_template = f.endpoint.chat_template;
  o.shutdown_timeout = f.endpoint.shutdown_timeout();
  o.journal = f.endpoint.journal;
  o.recovery_wait = f.endpoint.recovery_wait();
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
  env(verb->add_option("--model", f->model,
                       "Where this machine has the model (default: "
                       "as join; it reads the tokenizer alone)"));
  f->endpoint.add(*verb);
  f->fabric.add(*verb);
  env(verb->add_option("--fabric-host", f->fabric_host,
                       "Address for fabric clients (default: none)"))
      ->group("Fabric");
  env(verb->add_option("--fabric-port", f->fabric_port, "Its port; 0: any free one"))
      ->group("Fabric")
      ->check(CLI::Range(0, 65535));
  verb->callback([f, &chosen] { chosen = [f] { return gateway(*f); }; });
}

} // namespace hexgen::tools
