// Models of random weights, in memory: for tests and for `--random-weights`.
#pragma once

#include "compute/model_file.hpp"

#include <cstdint>
#include <memory>
#include <string_view>

namespace hexgen::compute {

/// A small configuration of one of the families (llama, mistral, qwen2, qwen3): 2 layers, hidden
/// size 128, 4 query and 2 KV heads of 32, FFN 256, vocabulary 320. Change what a test needs; for
/// K-quants every width must be a multiple of 256. Throws std::invalid_argument.
[[nodiscard]] model_config tiny_config(std::string_view architecture = "llama");

/// All tensors that `config` asks for, filled from `seed` alone: the same bytes on every machine.
/// Matrices and embedding are of type `matrices`; norms and biases are float32. Weights are scaled
/// so that activations and logits stay of the size that trained models have.
/// Throws std::invalid_argument when a width is not whole blocks of `matrices`, file_error for a
/// configuration that no reader would accept.
[[nodiscard]] std::shared_ptr<const model_file>
make_synthetic_model(const model_config& config, tensor_type matrices, std::uint64_t seed);

} // namespace hexgen::compute
