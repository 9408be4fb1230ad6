// hexgen: one binary, one verb for each thing that it does.
#include "tools/bench_serve/bench_serve.hpp"
#include "tools/bench_serve/bench_serve.hpp"
#include "tools/planning/verbs.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <string_view>

#ifndef HEXGEN_VERSION
#define HEXGEN_VERSION "0.1.0"
#endif

namespace {

constexpr const char* about =
    "Turns unlike machines into one LLM endpoint that keeps its word when a machine leaves.\n\n"
    "  hexgen serve smollm2                     serve a model with this machine's devices\n"
    "  hexgen join HOST:7600 --name n2          add another machine to it\n"
    "  hexgen chat \"Why is the sky blue?\"       ask it\n"
    "  hexgen status                            see nodes, links and the plan\n\n"
    "No device needed: hexgen plan, cost, simulate, compare (--help of each says more).\n"
    "Load against an endpoint: hexgen bench.\n"
    "Every option has an environment twin: --fabric-port is HEXGEN_FABRIC_PORT.\n"
    "Exit codes: 0 ok, 1 run-time failure, 2 usage.";

} // namespace

int main(int argc, char** argv) {
  using namespace hexgen::tools;
  // These read their own arguments.
  if (argc > 1) {
    if (const auto verb = planning_verb(argv[1]); verb != nullptr)
      return verb(argc - 1, argv + 1);
    if (std::string_view(argv[1]) == "bench")
      return bench_main(argc - 1, argv + 1);
  }
  if (argc > 1 && std::string_view(argv[1]) == "bench")
    return bench_main(argc - 1, argv + 1); // has vLLM's flags, which it reads by itself
  CLI::App app{about, "hexgen"};
  app.set_version_flag("--version", std::string("hexgen ") + HEXGEN_VERSION);
  app.set_config("--config", "", "TOML or INI file with a section for each verb");
  app.require_subcommand(1);
  app.fallthrough(false);
  action chosen;
  add_serve(app, chosen);
  add_join(app, chosen);
  add_gateway(app, chosen);
  add_chat(app, chosen);
  add_generate(app, chosen);
  add_status(app, chosen);
  add_top(app, chosen);
  add_drain(app, chosen);
  add_doctor(app, chosen);
  app.add_subcommand("bench", "Load an endpoint and measure it (hexgen bench --help)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    return chosen ? chosen() : 2;
  } catch (const usage_error& e) {
    std::fprintf(stderr, "hexgen: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "hexgen: %s\n", e.what());
    return 1;
  }
}
