// A GGUF file as a model.
#pragma once

#include "compute/files/gguf.hpp"

#include <memory>

namespace hexgen::compute {

/// Throws file_error when the architecture is none of llama, mistral, qwen2 and qwen3, a key is
/// missing or out of bounds, or the tensors do not make up such a model.
[[nodiscard]] std::shared_ptr<const model_file>
open_gguf_model(std::shared_ptr<const gguf_file> file);

} // namespace hexgen::compute
