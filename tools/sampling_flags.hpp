// How `chat` and `generate` sample.
#pragma once

#include "tools/settings.hpp"

#include <nlohmann/json_fwd.hpp>

#include <optional>

namespace hexgen::tools {

struct sampling_flags {
  int max_tokens = 512;
  double temperature = 0;
  double top_p = 1;
  std::int64_t seed = -1; // -1: none
  void add(CLI::App& app);
  void fill(nlohmann::json& body) const;
};

} // namespace hexgen::tools
