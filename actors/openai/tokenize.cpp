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

} // namespace

std::string tokenize_json(const json& body, const served_model& model) {
  if (field(body, "content") != nullptr)
    return llama_form(body, model);
  std::vector<compute::token_id> ids;
  if (field(body, "messages") != nullptr) {
    ids = chat_prompt(body, model);
  } else {
    const auto text = string_field(body, "prompt");
    if (!text)
      throw bad_parameter("prompt", "prompt, messages or content is missing");
    ids = model.tokens->encode(*text, true, bool_field(body, "add_special_tokens").value_or(true));
  }
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
