// What a chat or completion request asks for, checked and in the router's terms.
#pragma once

#include "actors/core/generation.hpp"

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>
#include <vector>

namespace hexgen::actors {

struct completion_request {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;    // a last chunk with the usage
  bool continuous_usage = false; // the usage so far in every chunk
  bool logprobs = false;
  bool token_ids = false;                  // the answer lists its token ids as well
  std::vector<generation_request> prompts; // without id; `choices` each
  std::vector<std::string> echo;           // put before each prompt's text; empty: nothing
  std::vector<std::string> unknown;        // fields that mean nothing here
};

// Both throw api_error. `seed` of each prompt is left at `random_seed` when none was given.
[[nodiscard]] completion_request parse_chat(const nlohmann::json& body, const served_model& model,
                                            std::uint64_t random_seed);
[[nodiscard]] completion_request
parse_completion(const nlohmann::json& body, const served_model& model, std::uint64_t random_seed);

/// The prompt of a chat: throws api_error naming `messages`.
[[nodiscard]] std::vector<compute::token_id> chat_prompt(const nlohmann::json& body,
                                                         const served_model& model);

} // namespace hexgen::actors
