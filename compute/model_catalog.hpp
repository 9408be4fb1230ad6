// What a MODEL argument means.
#pragma once

#include <filesystem>
#include <string_view>

namespace hexgen::compute {

/// Where models by name are kept: $XDG_CACHE_HOME/hexgen/models, else ~/.cache/hexgen/models.
/// Throws file_error when the environment names neither.
[[nodiscard]] std::filesystem::path model_cache();

/// The path for open_model and open_tokenizer: of the built-in name `smollm2`, a .gguf file or a
/// Hugging Face folder. Throws file_error that says what is missing and what gets it.
[[nodiscard]] std::filesystem::path resolve_model(std::string_view argument);

} // namespace hexgen::compute
