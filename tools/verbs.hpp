// The verbs of the command line: each adds its subcommand and, when chosen, its action.
#pragma once

#include <functional>

namespace CLI {
class App;
} // namespace CLI

namespace hexgen::tools {

/// Returns the process's exit code: 0 ok, 1 run-time failure, 2 usage.
using action = std::function<int()>;

void add_serve(CLI::App& app, action& chosen);
void add_join(CLI::App& app, action& chosen);
void add_gateway(CLI::App& app, action& chosen);
void add_chat(CLI::App& app, action& chosen);
void add_generate(CLI::App& app, action& chosen);
void add_status(CLI::App& app, action& chosen);
void add_top(CLI::App& app, action& chosen);
void add_drain(CLI::App& app, action& chosen);
void add_doctor(CLI::App& app, action& chosen);

} // namespace hexgen::tools
