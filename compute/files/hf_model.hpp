// A Hugging Face folder as a model.
#pragma once

#include "compute/model_file.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace hexgen::compute {

/// `folder` holds config.json and model.safetensors, or model.safetensors.index.json with the
/// shards it names. Tensors that lie off their element's boundary (old writers) are copied into
/// memory, all others are mapped. Throws file_error.
[[nodiscard]] std::shared_ptr<const model_file> open_hf_model(const std::filesystem::path& folder);

/// GGUF's name for a tensor of the Llama family's Hugging Face modules; empty when there is none.
[[nodiscard]] std::string gguf_tensor_name(std::string_view hf_name);

} // namespace hexgen::compute
