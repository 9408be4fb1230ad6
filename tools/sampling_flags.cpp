#include "tools/sampling_flags.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

namespace hexgen::tools {

void sampling_flags::add(CLI::App& app) {
  with_environment(app.add_option("--max-tokens", max_tokens, "Most tokens of the answer"))
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  with_environment(
      app.add_option("--temperature", temperature, "0: always the likeliest token (the default)"))
      ->check(CLI::Range(0.0, 100.0));
  with_environment(app.add_option("--top-p", top_p, "Keep the likeliest tokens up to this mass"))
      ->check(CLI::Range(0.0, 1.0));
  with_environment(app.add_option("--seed", seed, "Makes a sampled answer repeatable"));
}

void sampling_flags::fill(nlohmann::json& body) const {
  body["max_tokens"] = max_tokens;
  body["temperature"] = temperature;
  body["top_p"] = top_p;
  if (seed >= 0)
    body["seed"] = seed;
}

} // namespace hexgen::tools
