// Where this machine keeps models.
#pragma once

#include <filesystem>
#include <string>

namespace hexgen::actors {

/// $XDG_CACHE_HOME/hexgen/models or ~/.cache/hexgen/models.
[[nodiscard]] std::filesystem::path model_folder();

/// A `.gguf` file, a Hugging Face folder, a file name in model_folder(), or the built-in name
/// "smollm2". Throws std::runtime_error that says where it looked and what gets it.
[[nodiscard]] std::filesystem::path find_model(const std::string& name_or_path);

} // namespace hexgen::actors
