#include "compute/chat_template.hpp"

#include "compute/text/chat_families.hpp"

#include <stdexcept>

namespace hexgen::compute {

namespace {

constexpr const char* known_names = "smollm2, chatml, qwen2, qwen2.5, qwen3, llama2, llama3, "
                                    "llama3.1, mistral, mistral-v1, mistral-v2";

constexpr std::string_view smollm2_system =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
constexpr std::string_view qwen2_system = "You are a helpful assistant.";
constexpr std::string_view qwen25_system =
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::shared_ptr<const chat_template> by_name(std::string_view name, const template_tokens& t) {
  if (name == "smollm2")
    return make_chatml("smollm2", std::string(smollm2_system), tool_style::as_role);
  if (name == "chatml")
    return make_chatml("chatml", "", tool_style::as_role);
  if (name == "qwen2")
    return make_chatml("qwen2", std::string(qwen2_system), tool_style::as_role);
  if (name == "qwen2.5")
    return make_chatml("qwen2.5", std::string(qwen25_system), tool_style::as_response);
  if (name == "qwen3")
    return make_qwen3();
  if (name == "llama2")
    return make_llama2(t);
  if (name == "llama3")
    return make_llama3(t, false);
  if (name == "llama3.1")
    return make_llama3(t, true);
  if (name == "mistral" || name == "mistral-v3")
    return make_mistral(t, mistral_form::v3);
  if (name == "mistral-v2")
    return make_mistral(t, mistral_form::v2);
  if (name == "mistral-v1")
    return make_mistral(t, mistral_form::v1);
  return nullptr;
}

// ChatML templates differ in the system text that they put first when a conversation has none.
std::shared_ptr<const chat_template> chatml_of(std::string_view jinja, const template_tokens& t) {
  if (has(jinja, "reasoning_content") || has(jinja, "enable_thinking"))
    return by_name("qwen3", t);
  if (has(jinja, smollm2_system))
    return by_name("smollm2", t);
  if (has(jinja, qwen25_system))
    return by_name("qwen2.5", t);
  constexpr std::string_view opening = "<|im_start|>system\\n";
  constexpr std::string_view opening_with_line_end = "<|im_start|>system\n";
  auto at = jinja.find(opening);
  auto length = opening.size();
  if (at == std::string_view::npos) {
    at = jinja.find(opening_with_line_end);
    length = opening_with_line_end.size();
  }
  if (at == std::string_view::npos)
    return by_name("chatml", t);
  const auto text = jinja.substr(at + length);
  const auto system = text.substr(0, text.find("<|im_end|>"));
  if (system.empty() || system.front() == '\'' || system.front() == '"')
    return by_name("chatml", t);
  if (system == qwen2_system)
    return by_name("qwen2", t);
  if (has(system, "'") || has(system, "\"") || has(system, "{") || has(system, "\\"))
    return nullptr;
  return make_chatml("chatml", std::string(system), tool_style::as_role);
}

std::shared_ptr<const chat_template> by_text(std::string_view jinja, const template_tokens& t) {
  if (has(jinja, "<|im_start|>"))
    return chatml_of(jinja, t);
  if (has(jinja, "<|start_header_id|>"))
    return make_llama3(t, has(jinja, "Cutting Knowledge Date"));
  if (has(jinja, "<<SYS>>"))
    return make_llama2(t);
  if (has(jinja, "[INST]")) {
    if (has(jinja, "\"[/INST]\"") || has(jinja, "'[/INST]'"))
      return make_mistral(t, mistral_form::v3);
    if (has(jinja, "\" [INST] \"") || has(jinja, "' [INST] '"))
      return make_mistral(t, mistral_form::v2);
    return make_mistral(t,
                        has(jinja, "eos_token + ' '") ? mistral_form::v1_spaced : mistral_form::v1);
  }
  return nullptr;
}

} // namespace

std::shared_ptr<const chat_template> find_chat_template(std::string_view jinja,
                                                        std::string_view name_or_empty,
                                                        std::string_view bos_text,
                                                        std::string_view eos_text) {
  const template_tokens tokens{std::string(bos_text), std::string(eos_text)};
  if (!name_or_empty.empty()) {
    if (auto found = by_name(name_or_empty, tokens))
      return found;
    throw std::invalid_argument("--chat-template '" + std::string(name_or_empty) +
                                "' is not known (known: " + known_names + ")");
  }
  if (auto found = by_text(jinja, tokens))
    return found;
  throw std::invalid_argument(std::string(jinja.empty()
                                              ? "the model's files have no chat template"
                                              : "the model's chat template is not recognised") +
                              "; name one with --chat-template (known: " + known_names + ")");
}

} // namespace hexgen::compute
