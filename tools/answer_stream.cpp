#include "tools/answer_stream.hpp"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdio>
#include <stdexcept>

namespace hexgen::tools {
namespace {

using json = nlohmann::json;
using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point t) {
  return std::chrono::duration<double>(clock::now() - t).count();
}

std::string error_text(const json& j, const std::string& otherwise) {
  if (j.is_object() && j.contains("error") && j["error"].is_object())
    return j["error"].value("message", otherwise);
  return otherwise;
}

} // namespace

std::string answer::summary() const {
  char line[160];
  std::snprintf(line, sizeof line,
                "%d prompt tokens, %d generated (%s), first after %.0f ms, then %.1f tokens/s",
                prompt_tokens, completion_tokens, finish_reason.c_str(), first_token_s * 1e3,
                tokens_per_s());
  return line;
}

answer stream_answer(actors::fabric_session& session, const std::string& path, json body,
                     bool show) {
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const bool chat = path == "/v1/chat/completions";
  answer out;
  std::string failure;
  const auto start = clock::now();
  auto first = start;
  auto take = [&](const std::string& payload) {
    if (payload == "[DONE]")
      return true;
    const auto j = json::parse(payload, nullptr, false);
    if (j.is_discarded() || !j.is_object())
      return true;
    if (j.contains("error")) {
      failure = error_text(j, payload);
      return true;
    }
    if (j.contains("usage") && j["usage"].is_object()) {
      out.prompt_tokens = j["usage"].value("prompt_tokens", 0);
      out.completion_tokens = j["usage"].value("completion_tokens", 0);
    }
    if (!j.contains("choices") || !j["choices"].is_array() || j["choices"].empty())
      return true;
    const auto& choice = j["choices"][0];
    std::string text;
    if (chat && choice.contains("delta") && choice["delta"].contains("content") &&
        choice["delta"]["content"].is_string())
      text = choice["delta"]["content"];
    else if (!chat && choice.contains("text") && choice["text"].is_string())
      text = choice["text"];
    if (out.first_token_s == 0) {
      first = clock::now();
      out.first_token_s = seconds_since(start);
    }
    if (choice.contains("finish_reason") && choice["finish_reason"].is_string())
      out.finish_reason = choice["finish_reason"];
    out.seconds = seconds_since(first);
    out.text += text;
    if (show) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
    return true;
  };
  const auto reply =
      session.request(path, body.dump(-1, ' ', false, json::error_handler_t::replace), take);
  if (reply.status != 200)
    throw std::runtime_error(error_text(json::parse(reply.body, nullptr, false), reply.body));
  if (!failure.empty())
    throw std::runtime_error(failure);
  return out;
}

} // namespace hexgen::tools
