#include "actors/openai/completion_request.hpp"

#include "actors/openai/api_error.hpp"
#include "actors/openai/bounds.hpp"
#include "actors/openai/json_fields.hpp"
#include "actors/openai/sampling_fields.hpp"

namespace hexgen::actors {

using compute::token_id;
using nlohmann::json;

namespace {

std::vector<token_id> read_ids(const json& ids, const served_model& model) {
  // Bounded before it is copied: no prompt longer than the window can be served.
  if (ids.size() > static_cast<std::size_t>(model.context))
    throw api_error(400, "invalid_request_error",
                    "this model's window is " + std::to_string(model.context) +
                        " tokens; the prompt has " + std::to_string(ids.size()),
                    "prompt", "context_length_exceeded");
  std::vector<token_id> out;
  out.reserve(ids.size());
  for (const auto& id : ids)
    out.push_back(token_value(id, model.tokens->vocab(), "prompt"));
  return out;
}

bool is_list_of(const json& list, bool (json::*kind)() const noexcept) {
  for (const auto& one : list)
    if (!(one.*kind)())
      return false;
  return list.is_array() && !list.empty();
}

// A text, a list of ids, or a list of either.
std::vector<json> split_prompts(const json& prompt) {
  if (prompt.is_string() || is_list_of(prompt, &json::is_number))
    return {prompt};
  if (is_list_of(prompt, &json::is_string) || is_list_of(prompt, &json::is_array)) {
    if (prompt.size() > bounds::prompts)
      throw bad_parameter("prompt", "prompt must hold at most " + std::to_string(bounds::prompts) +
                                        " prompts");
    return {prompt.begin(), prompt.end()};
  }
  throw bad_parameter("prompt",
                      "prompt must be a string, a list of token ids, or a list of either");
}

} // namespace

completion_request parse_completion(const json& body, const served_model& model,
                                    std::uint64_t random_seed) {
  completion_request request;
  generation_request shared;
  read_shared_fields(body, model, random_seed, request, shared);
  if (const auto logprobs = integer_field(body, "logprobs")) {
    request.logprobs = true;
    shared.params.logprobs = *logprobs;
  }
  if (integer_field(body, "best_of").value_or(shared.choices) != shared.choices)
    throw bad_parameter("best_of", "best_of other than n is not supported");
  if (!string_field(body, "suffix").value_or("").empty())
    throw bad_parameter("suffix", "suffix is not supported");
  const bool echo = bool_field(body, "echo").value_or(false);
  if (echo && request.logprobs)
    throw bad_parameter("echo", "echo together with logprobs is not supported");
  const bool add_special = bool_field(body, "add_special_tokens").value_or(true);
  const auto asked = integer_field(body, "max_tokens");

  const auto* prompt = field(body, "prompt");
  if (prompt == nullptr)
    throw bad_parameter("prompt", "prompt is missing");
  const auto parts = split_prompts(*prompt);
  if (parts.size() * static_cast<std::size_t>(shared.choices) > bounds::choices)
    throw bad_parameter("n", "n times the number of prompts must be at most " +
                                 std::to_string(bounds::choices));
  for (const auto& part : parts) {
    auto one = shared;
    if (part.is_string()) {
      const auto& text = part.get_ref<const std::string&>();
      one.prompt = model.tokens->encode(text, true, add_special);
      if (echo)
        request.echo.push_back(text);
    } else {
      one.prompt = read_ids(part, model);
      if (echo)
        request.echo.push_back(model.tokens->decode(one.prompt, one.skip_special_tokens));
    }
    if (one.prompt.empty())
      throw bad_parameter("prompt", "prompt must not be empty");
    fit_into_window(one, model, asked, "max_tokens", 16, "prompt");
    request.prompts.push_back(std::move(one));
  }
  return request;
}

completion_request parse_chat(const json& body, const served_model& model,
                              std::uint64_t random_seed) {
  completion_request request;
  request.chat = true;
  generation_request one;
  read_shared_fields(body, model, random_seed, request, one);
  request.logprobs = bool_field(body, "logprobs").value_or(false);
  const auto top = integer_field(body, "top_logprobs");
  if (top.value_or(0) > 0 && !request.logprobs)
    throw bad_parameter("top_logprobs", "top_logprobs goes with logprobs: true only");
  if (request.logprobs)
    one.params.logprobs = top.value_or(0);

  const auto* choice = field(body, "tool_choice");
  for (const char* name : {"tools", "functions"})
    if (const auto* tools = field(body, name))
      if (!(tools->is_array() && tools->empty()) && (choice == nullptr || *choice != "none"))
        throw bad_parameter(name, std::string(name) + " are not supported");
  one.prompt = chat_prompt(body, model);

  const auto most = integer_field(body, "max_completion_tokens");
  const auto older = integer_field(body, "max_tokens");
  fit_into_window(one, model, most ? most : older, most ? "max_completion_tokens" : "max_tokens",
                  std::nullopt, "messages");
  request.prompts.push_back(std::move(one));
  return request;
}

} // namespace hexgen::actors
