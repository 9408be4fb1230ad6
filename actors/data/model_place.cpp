#include "actors/data/model_place.hpp"

#include <cstdlib>
#include <stdexcept>

namespace hexgen::actors {
namespace {

constexpr const char* default_file = "SmolLM2-135M-Instruct.Q4_1.gguf";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

} // namespace

std::filesystem::path model_folder() {
  if (auto cache = variable("XDG_CACHE_HOME"); !cache.empty())
    return std::filesystem::path(cache) / "hexgen" / "models";
  const auto home = variable("HOME");
  return std::filesystem::path(home.empty() ? "/root" : home) / ".cache" / "hexgen" / "models";
}

std::filesystem::path find_model(const std::string& name_or_path) {
  std::error_code none;
  if (name_or_path == "smollm2") {
    const auto cached = model_folder() / default_file;
    if (std::filesystem::exists(cached, none))
      return cached;
    throw std::runtime_error("the default model is not at " + cached.string() +
                             ": run tools/fetch_model.sh to get it");
  }
  if (std::filesystem::exists(name_or_path, none))
    return std::filesystem::absolute(name_or_path);
  const auto cached = model_folder() / std::filesystem::path(name_or_path).filename();
  if (std::filesystem::exists(cached, none))
    return cached;
  throw std::runtime_error("there is no model at " + name_or_path + " nor at " + cached.string());
}

} // namespace hexgen::actors
