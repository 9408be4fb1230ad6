// From `messages` to token ids.
#include "actors/openai/api_error.hpp"
#include "actors/openai/bounds.hpp"
#include "actors/openai/completion_request.hpp"
#include "actors/openai/json_fields.hpp"

#include <stdexcept>

namespace hexgen::actors {

using nlohmann::json;

namespace {

std::string read_content(const json& message, const std::string& where) {
  const auto* content = field(message, "content");
  if (content == nullptr)
    return {}; // an assistant's turn that only called tools
  if (content->is_string())
    return content->get<std::string>();
  if (!content->is_array())
    throw bad_parameter("messages", where + ".content must be a string or a list of parts");
  std::string text;
  for (const auto& part : *content) {
    const auto* type = part.is_object() ? field(part, "type") : nullptr;
    const auto* words = part.is_object() ? field(part, "text") : nullptr;
    if (type == nullptr || *type != "text" || words == nullptr || !words->is_string())
      throw bad_parameter("messages", where + ".content: only parts of type text are supported");
    text += words->get_ref<const std::string&>();
  }
  return text;
}

std::vector<compute::chat_message> read_messages(const json& body) {
  const auto* messages = field(body, "messages");
  if (messages == nullptr || !messages->is_array() || messages->empty() ||
      messages->size() > bounds::messages)
    throw bad_parameter("messages", "messages must be a list of 1 to " +
                                        std::to_string(bounds::messages) + " messages");
  std::vector<compute::chat_message> out;
  for (const auto& message : *messages) {
    const std::string where = "messages[" + std::to_string(out.size()) + "]";
    const auto* role = message.is_object() ? field(message, "role") : nullptr;
    if (role == nullptr || !role->is_string())
      throw bad_parameter("messages", where + " must be an object with a role");
    auto name = role->get<std::string>();
    if (name == "developer")
      name = "system";
    if (name == "function")
      name = "tool";
    if (name != "system" && name != "user" && name != "assistant" && name != "tool")
      throw bad_parameter("messages", where + ".role must be system, developer, user, assistant or "
                                              "tool");
    out.push_back({std::move(name), read_content(message, where)});
  }
  return out;
}

} // namespace

std::vector<compute::token_id> chat_prompt(const json& body, const served_model& model) {
  const auto messages = read_messages(body);
  const bool go_on = bool_field(body, "continue_final_message").value_or(false);
  const bool add_prompt = bool_field(body, "add_generation_prompt").value_or(!go_on);
  const auto* kwargs = field(body, "chat_template_kwargs");
  if (kwargs != nullptr && !kwargs->is_object())
    throw bad_parameter("chat_template_kwargs", "chat_template_kwargs must be an object");
  if (go_on && add_prompt)
    throw bad_parameter("continue_final_message",
                        "continue_final_message and add_generation_prompt exclude each other");
  if (!model.chat)
    throw bad_parameter("messages", "this model has no chat template; use /v1/completions");
  std::string text;
  try {
    text = model.chat->render(messages, add_prompt);
  } catch (const std::invalid_argument& e) {
    throw bad_parameter("messages", e.what());
  }
  if (go_on) { // cut what the template puts after the last message's words
    const auto at = text.rfind(messages.back().content);
    if (at != std::string::npos)
      text.resize(at + messages.back().content.size());
  }
  auto ids = model.tokens->encode(text, true, false);
  if (ids.empty())
    throw bad_parameter("messages", "messages give an empty prompt");
  return ids;
}

} // namespace hexgen::actors
