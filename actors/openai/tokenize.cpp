#include "actors/openai/tokenize.hpp"

#include "actors/openai/api_error.hpp"
#include "actors/openai/completion_request.hpp"
#include "actors/openai/json_fields.hpp"

namespace hexgen::actors {

using nlohmann::json;

namespace {

std::string dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string llama_form(const json& body, const served_model& model) {
  const auto text = *string_field(body, "content");
  const bool special = bool_field(body, "add_special").value_or(false);
  const auto ids =
      model.tokens->encode(text, bool_field(body, "parse_special").value_or(true), special);
  nlohmann::ordered_json reply;
  reply["tokens"] = json::array();
  if (!bool_field(body, "with_pieces").value_or(false))
    reply["tokens"] = ids;
  else
    for (const auto id : ids)
      reply["tokens"].push_back({{"id", id}, {"piece", model.tokens->piece(id, false)}});
  return dump(reply);
}

/// The one of the fields that say what to tokenize.
const char* given_text(const json& body) {
  const char* given = nullptr;
  for (const char* name : {"prompt", "messages", "content"}) {
    if (field(body, name) == nullptr)
      continue;
    if (given != nullptr)
      throw bad_parameter(name, std::string(name) + " and " + given + " exclude each other");
    given = name;
  }
  if (given == nullptr)
    throw bad_parameter("prompt", "prompt, messages or content is missing");
  return given;
}

} // namespace

std::string tokenize_json(const json& body, const served_model& model) {
  const std::string_view given = given_text(body);
  for (const char* name :
       {"add_special_tokens", "return_token_strs", "add_special", "with_pieces", "parse_special"})
    (void)bool_field(body, name); // what the other form would read must be right too
  if (given == "content")
    return llama_form(body, model);
  std::vector<compute::token_id> ids;
  if (given == "messages")
    ids = chat_prompt(body, model);
  else
    ids = model.tokens->encode(*string_field(body, "prompt"), true,
                               bool_field(body, "add_special_tokens").value_or(true));
  nlohmann::ordered_json reply;
  reply["count"] = ids.size();
  reply["max_model_len"] = model.context;
  reply["tokens"] = ids;
  reply["token_strs"] = nullptr;
  if (bool_field(body, "return_token_strs").value_or(false)) {
    reply["token_strs"] = json::array();
    for (const auto id : ids)
      reply["token_strs"].push_back(model.tokens->piece(id, false));
  }
  return dump(reply);
}

std::string detokenize_json(const json& body, const served_model& model) {
  const auto* tokens = field(body, "tokens");
  if (tokens == nullptr || !tokens->is_array())
    throw bad_parameter("tokens", "tokens must be a list of token ids");
  std::vector<compute::token_id> ids;
  ids.reserve(tokens->size());
  for (const auto& id : *tokens)
    ids.push_back(token_value(id, model.tokens->vocab(), "tokens"));
  const auto text = model.tokens->decode(ids, false);
  nlohmann::ordered_json reply;
  reply["prompt"] = text;
  reply["content"] = text;
  return dump(reply);
}

} // namespace hexgen::actors
