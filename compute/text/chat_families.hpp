// The chat templates of the families that are served, each as its own Jinja text renders.
#pragma once

#include "compute/chat_template.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace hexgen::compute {

struct template_tokens {
  std::string bos;
  std::string eos;
};

/// How a ChatML template shows a tool's answer.
enum class tool_style : std::uint8_t {
  as_role,    // a message of role "tool"
  as_response // <tool_response> in a user message, neighbours in one
};

/// Mistral-7B-Instruct's templates: as first published for v0.1 (an end token, in one revision
/// with a space after it; no system text), the revised ones of v0.1 and v0.2 (system text in the
/// first user message), and v0.3 (system text in the last).
enum class mistral_form : std::uint8_t { v1, v1_spaced, v2, v3 };

/// `default_system`: put first when the conversation does not begin with a system message.
[[nodiscard]] std::shared_ptr<const chat_template>
make_chatml(std::string name, std::string default_system, tool_style tools);
[[nodiscard]] std::shared_ptr<const chat_template> make_qwen3();
[[nodiscard]] std::shared_ptr<const chat_template> make_llama2(template_tokens tokens);
/// `dated`: the form since 3.1, whose system message names the dates of knowledge and of "today"
/// (its fixed default: prompts do not depend on the clock).
[[nodiscard]] std::shared_ptr<const chat_template> make_llama3(template_tokens tokens, bool dated);
[[nodiscard]] std::shared_ptr<const chat_template> make_mistral(template_tokens tokens,
                                                                mistral_form form);

} // namespace hexgen::compute
