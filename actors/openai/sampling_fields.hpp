// The fields that chat and completion requests share: sampling, stops, streaming.
#pragma once

#include "actors/openai/completion_request.hpp"

namespace hexgen::actors {

/// Fills `request` but for prompts' ids, echo and logprobs; `generation` gets the sampling. Throws
/// api_error.
void read_shared_fields(const nlohmann::json& body, const served_model& model,
                        std::uint64_t random_seed, completion_request& request,
                        generation_request& generation);

/// Sets max_tokens of `generation`, whose prompt is known: `asked`, else `otherwise` or what the
/// window leaves. Throws context_length_exceeded naming `prompt_field` or the field asked with.
void fit_into_window(generation_request& generation, const served_model& model,
                     std::optional<int> asked, const char* asked_field,
                     std::optional<int> otherwise, const char* prompt_field);

/// What the sampler would refuse must not reach a stage: there it would fail a whole step. Throws
/// api_error.
void check_sampler_takes(const generation_request& generation, const served_model& model);

/// Names of the body's fields that are in no list.
[[nodiscard]] std::vector<std::string> unknown_fields(const nlohmann::json& body, bool chat);

} // namespace hexgen::actors
