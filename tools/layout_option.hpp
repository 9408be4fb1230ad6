// --stages 2,1 --layers 18,12 --placement n1/0,n2/0,n3/0
#pragma once

#include "scheduler/serving_planner.hpp"

#include <optional>
#include <string>

namespace hexgen::tools {

/// Nothing when no layout was given. Throws usage_error when the three do not fit together.
[[nodiscard]] std::optional<scheduler::manual_layout>
parse_layout(const std::string& stages, const std::string& layers, const std::string& placement);

} // namespace hexgen::tools
