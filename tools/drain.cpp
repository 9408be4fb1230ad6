// hexgen drain NODE: takes a node out without losing a request.
#include "actors/shell/fabric_session.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>
#include <unistd.h>

#include <cstdio>
#include <memory>

namespace hexgen::tools {
namespace {

struct drain_flags {
  std::string node, address = "127.0.0.1:7600", token_file;
  double timeout_s = 120;
};

int drain(const drain_flags& f) {
  transport::fabric_options o;
  o.name = "operator-" + std::to_string(::getpid());
  o.role = transport::peer_role::node; // a client may not change the cluster
  o.cluster_token = cluster_token(f.token_file, false);
  o.zone = "-";
  actors::fabric_session session(o, f.address, std::chrono::seconds(5));
  const auto words = session.drain(
      f.node, std::chrono::milliseconds(static_cast<std::int64_t>(f.timeout_s * 1000)));
  std::printf("%s\n", words.c_str());
  return 0;
}

} // namespace

void add_drain(CLI::App& app, action& chosen) {
  auto f = std::make_shared<drain_flags>();
  auto* verb = app.add_subcommand(
      "drain", "Take a node out without losing a request: its work moves to the others first");
  verb->add_option("NODE", f->node, "The node's name, as `hexgen status` shows it")->required();
  with_environment(verb->add_option("--address", f->address, "Fabric address of hexgen serve"))
      ->capture_default_str();
  with_environment(verb->add_option("--cluster-token-file", f->token_file,
                                    "File with the cluster token (else HEXGEN_CLUSTER_TOKEN, else "
                                    "this user's own)"));
  verb->add_option("--timeout", f->timeout_s, "Seconds to wait")->capture_default_str();
  verb->callback([f, &chosen] { chosen = [f] { return drain(*f); }; });
}

} // namespace hexgen::tools
