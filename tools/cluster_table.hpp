// /cluster's JSON as tables for people.
#pragma once

#include <string>

namespace hexgen::tools {

/// Nodes, links, plan and why. Throws std::runtime_error when `json` is not a cluster's.
[[nodiscard]] std::string cluster_table(const std::string& json);

} // namespace hexgen::tools
