// The verbs that plan without devices: plan, cost, simulate, compare.
#pragma once

#include <string_view>

namespace hexgen::tools {

/// Each reads its own arguments (argv[0] is the verb) and returns the process's exit code: 0 ok,
/// 1 run-time failure or no feasible plan, 2 usage.
int plan_main(int argc, char** argv);
int cost_main(int argc, char** argv);
int simulate_main(int argc, char** argv);
int compare_main(int argc, char** argv);

/// The verb's function, nullptr when it is not one of these.
using planning_function = int (*)(int, char**);
[[nodiscard]] planning_function planning_verb(std::string_view name);

} // namespace hexgen::tools
