#include "compute/model_catalog.hpp"

#include "compute/model_file.hpp"

#include <cstdlib>

namespace hexgen::compute {

namespace {

struct known_model {
  std::string_view name;
  std::string_view file;
};

constexpr known_model known_models[] = {{"smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"}};

} // namespace

std::filesystem::path model_cache() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0')
    return std::filesystem::path(cache) / "hexgen" / "models";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0')
    throw file_error("neither XDG_CACHE_HOME nor HOME says where models are kept");
  return std::filesystem::path(home) / ".cache" / "hexgen" / "models";
}

std::filesystem::path resolve_model(std::string_view argument) {
  std::error_code error;
  for (const auto& known : known_models)
    if (argument == known.name) {
      const auto path = model_cache() / known.file;
      if (!std::filesystem::exists(path, error))
        throw file_error(path.string() + ": not there yet; tools/fetch_model.sh gets it");
      return path;
    }
  const std::filesystem::path path(argument);
  if (!std::filesystem::exists(path, error))
    throw file_error(path.string() + ": no such file or folder, nor a built-in name (smollm2)");
  if (std::filesystem::is_directory(path, error)) {
    if (!std::filesystem::exists(path / "config.json", error))
      throw file_error(path.string() + ": a folder without config.json");
    return path;
  }
  if (path.extension() != ".gguf" && path.extension() != ".yaml")
    throw file_error(path.string() + ": neither a .gguf file nor a folder with config.json");
  return path;
}

} // namespace hexgen::compute
