// What every reader ends in: a configuration and the views of the tensors it asks for.
#pragma once

#include "compute/model_file.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

enum class tensor_role : std::uint8_t { embedding, matrix, norm, bias };

/// A tensor that a model of some configuration has.
struct expected_tensor {
  std::string name;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  tensor_role role = tensor_role::matrix;
};

/// All tensors of a model of `config`, in the order of their use.
[[nodiscard]] std::vector<expected_tensor> expected_tensors(const model_config& config);

/// Throws file_error, naming `file` and the field, when a number is out of bounds or does not go
/// with the others (heads not a multiple of KV heads, an odd head dimension, ...).
void check_config(const model_config& config, const std::string& file);

/// A model_file over views that `owner` keeps alive (bytes and names). Throws file_error, naming
/// `file`, when an expected tensor is missing, misshapen or of a type that its role does not
/// allow, or when there is a weight or bias that the configuration does not explain.
[[nodiscard]] std::shared_ptr<const model_file>
make_stored_model(const std::string& file, model_config config, std::vector<tensor_view> tensors,
                  std::shared_ptr<const void> owner);

/// Text from a file in quotes, made fit for a one-line message.
[[nodiscard]] std::string in_quotes(std::string_view text);

} // namespace hexgen::compute
