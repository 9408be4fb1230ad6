// /tokenize and /detokenize, in vLLM's form and in llama-server's.
#pragma once

#include "actors/core/generation.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace hexgen::actors {

/// {"prompt"} or {"messages"} (vLLM) -> {"count", "max_model_len", "tokens", "token_strs"};
/// {"content"} (llama-server) -> {"tokens"}. Throws api_error.
[[nodiscard]] std::string tokenize_json(const nlohmann::json& body, const served_model& model);
/// {"tokens"} -> {"prompt", "content"}: the same text under both names. Throws api_error.
[[nodiscard]] std::string detokenize_json(const nlohmann::json& body, const served_model& model);

} // namespace hexgen::actors
