// hexgen status and top: nodes, links, plan, rates.
#include "actors/shell/fabric_session.hpp"
#include "tools/cluster_table.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>
#include <thread>

namespace hexgen::tools {
namespace {

struct status_flags {
  bool json = false;
  double interval_s = 1;
  int rounds = 0;
  client_flags client;
};

int status(const status_flags& f) {
  actors::fabric_session session(f.client.options(), f.client.address, std::chrono::seconds(5));
  const auto text = session.status(std::chrono::seconds(5));
  std::printf("%s%s", f.json ? text.c_str() : cluster_table(text).c_str(), f.json ? "\n" : "");
  return 0;
}

int top(const status_flags& f) {
  actors::fabric_session session(f.client.options(), f.client.address, std::chrono::seconds(5));
  for (int round = 0; f.rounds == 0 || round < f.rounds; ++round) {
    if (round > 0)
      std::this_thread::sleep_for(std::chrono::duration<double>(f.interval_s));
    const auto text = session.status(std::chrono::seconds(5));
    if (f.json)
      std::printf("%s\n", text.c_str());
    else // home, clear: the table stays in its place
      std::printf("\033[H\033[2J%s", cluster_table(text).c_str());
    std::fflush(stdout);
  }
  return 0;
}

} // namespace

void add_status(CLI::App& app, action& chosen) {
  auto f = std::make_shared<status_flags>();
  auto* verb = app.add_subcommand("status", "Nodes, links, the plan and why");
  verb->add_flag("--json", f->json, "The same as JSON (as GET /cluster)");
  f->client.add(*verb);
  verb->callback([f, &chosen] { chosen = [f] { return status(*f); }; });
}

void add_top(CLI::App& app, action& chosen) {
  auto f = std::make_shared<status_flags>();
  auto* verb = app.add_subcommand("top", "As status, refreshed until interrupted");
  verb->add_flag("--json", f->json, "One JSON object a round");
  verb->add_option("--interval", f->interval_s, "Seconds between rounds")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  verb->add_option("--rounds", f->rounds, "Stop after so many; 0: never")->capture_default_str();
  f->client.add(*verb);
  verb->callback([f, &chosen] { chosen = [f] { return top(*f); }; });
}

} // namespace hexgen::tools
