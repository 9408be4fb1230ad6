#include "actors/openai/completion_reply.hpp"

#include <nlohmann/json.hpp>

namespace hexgen::actors {

using json = nlohmann::ordered_json;

namespace {

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

bool is_utf8(const std::string& text) {
  try {
    (void)json(text).dump();
    return true;
  } catch (const json::type_error&) {
    return false;
  }
}

// A token's text as a JSON key: tokens that are part of a character are told apart by their bytes.
std::string key_text(const std::string& piece) {
  if (is_utf8(piece))
    return piece;
  static constexpr char digits[] = "0123456789abcdef";
  std::string text = "bytes:";
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    text += "\\x";
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

json chat_token(const reply_frame& frame, compute::token_id id, float logprob) {
  const auto piece = frame.tokens->piece(id, false);
  json bytes = json::array();
  for (const char c : piece)
    bytes.push_back(static_cast<unsigned char>(c));
  json token;
  token["token"] = piece;
  token["logprob"] = logprob;
  token["bytes"] = std::move(bytes);
  return token;
}

json chat_logprobs(const reply_frame& frame, const reply_choice& choice) {
  json content = json::array();
  for (const auto& token : choice.tokens) {
    auto entry = chat_token(frame, token.id, token.logprob);
    entry["top_logprobs"] = json::array();
    for (const auto& top : token.top)
      entry["top_logprobs"].push_back(chat_token(frame, top.id, top.logprob));
    content.push_back(std::move(entry));
  }
  json logprobs;
  logprobs["content"] = std::move(content);
  return logprobs;
}

json completion_logprobs(const reply_frame& frame, const reply_choice& choice) {
  json logprobs;
  for (const char* name : {"text_offset", "token_logprobs", "tokens", "top_logprobs"})
    logprobs[name] = json::array();
  auto offset = choice.text_offset;
  for (const auto& token : choice.tokens) {
    const auto piece = frame.tokens->piece(token.id, false);
    logprobs["text_offset"].push_back(offset);
    logprobs["token_logprobs"].push_back(token.logprob);
    logprobs["tokens"].push_back(key_text(piece));
    json top = json::object();
    for (const auto& one : token.top)
      top[key_text(frame.tokens->piece(one.id, false))] = one.logprob;
    logprobs["top_logprobs"].push_back(std::move(top));
    offset += piece.size();
  }
  return logprobs;
}

json usage_object(const reply_usage& usage) {
  json object;
  object["prompt_tokens"] = usage.prompt_tokens;
  object["completion_tokens"] = usage.completion_tokens;
  object["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  object["prompt_tokens_details"]["cached_tokens"] = usage.cached_tokens;
  return object;
}

json head(const reply_frame& frame, bool chunk) {
  json body;
  body["id"] = frame.id;
  body["object"] = !frame.chat ? "text_completion"
                   : chunk     ? "chat.completion.chunk"
                               : "chat.completion";
  body["created"] = frame.created_s;
  body["model"] = frame.model;
  body["choices"] = json::array();
  return body;
}

json choice_object(const reply_frame& frame, const reply_choice& choice, bool chunk) {
  json object;
  object["index"] = choice.index;
  if (!frame.chat) {
    object["text"] = choice.text;
  } else if (chunk) {
    auto& delta = object["delta"] = json::object();
    if (choice.first)
      delta["role"] = "assistant";
    delta["content"] = choice.text;
  } else {
    object["message"] = {{"role", "assistant"}, {"content", choice.text}};
  }
  object["logprobs"] = nullptr;
  if (frame.logprobs)
    object["logprobs"] =
        frame.chat ? chat_logprobs(frame, choice) : completion_logprobs(frame, choice);
  if (frame.token_ids) {
    auto& ids = object["token_ids"] = json::array();
    for (const auto& token : choice.tokens)
      ids.push_back(token.id);
  }
  object["finish_reason"] = nullptr;
  if (!choice.finish_reason.empty())
    object["finish_reason"] = choice.finish_reason;
  return object;
}

} // namespace

std::string chunk_json(const reply_frame& frame, const reply_choice& choice,
                       const reply_usage* usage_so_far) {
  auto body = head(frame, true);
  body["choices"].push_back(choice_object(frame, choice, true));
  if (usage_so_far != nullptr)
    body["usage"] = usage_object(*usage_so_far);
  else if (frame.usage_null)
    body["usage"] = nullptr;
  return dump(body);
}

std::string usage_chunk_json(const reply_frame& frame, const reply_usage& usage) {
  auto body = head(frame, true);
  body["usage"] = usage_object(usage);
  return dump(body);
}

std::string whole_json(const reply_frame& frame, const std::vector<reply_choice>& choices,
                       const reply_usage& usage, const reply_times& times) {
  auto body = head(frame, false);
  for (const auto& choice : choices)
    body["choices"].push_back(choice_object(frame, choice, false));
  body["usage"] = usage_object(usage);
  body["metrics"] = {{"time_to_first_token_ms", times.time_to_first_token_ms},
                     {"generation_time_ms", times.generation_time_ms},
                     {"tokens_per_second", times.tokens_per_second}};
  return dump(body);
}

} // namespace hexgen::actors
