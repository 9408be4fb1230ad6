// A conversation to the prompt text that the model was trained on.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

struct chat_message {
  std::string role; // system, user, assistant, tool
  std::string content;
};

/// Recognises the template of the families that Hexgen serves (ChatML with SmolLM2's and Qwen's
/// default system texts, Llama 2, Llama 3, Mistral) by the Jinja text in the model's files or by
/// name. An unknown template is a clear error that says which names `--chat-template` takes.
class chat_template {
 public:
  virtual ~chat_template() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  /// The prompt's text, BOS included where the family's template writes it: encode it with
  /// parse_special and without add_bos.
  /// Throws std::invalid_argument for a role or an order that the template does not allow.
  [[nodiscard]] virtual std::string render(const std::vector<chat_message>& messages,
                                           bool add_generation_prompt) const = 0;
};

/// `name_or_empty` wins over recognition of `jinja`. Throws std::invalid_argument.
[[nodiscard]] std::shared_ptr<const chat_template> find_chat_template(
    std::string_view jinja, std::string_view name_or_empty, std::string_view bos_text,
    std::string_view eos_text);

} // namespace hexgen::compute
