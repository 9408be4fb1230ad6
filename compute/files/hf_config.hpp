// config.json of a Hugging Face folder.
#pragma once

#include "compute/model_config.hpp"

#include <string>
#include <string_view>

namespace hexgen::compute {

/// `file` is used in messages. What only the weights say (`qk_norm` and `qkv_bias` follow from
/// the family) is taken from the family's rules. Throws file_error naming file and field.
[[nodiscard]] model_config parse_hf_config(std::string_view json, const std::string& file);

} // namespace hexgen::compute
