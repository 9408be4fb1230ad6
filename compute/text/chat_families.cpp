#include "compute/text/chat_families.hpp"

#include "compute/text/unicode.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

namespace hexgen::compute {

namespace {

using messages_t = std::vector<chat_message>;

// A role becomes part of the prompt, so it must not smuggle tokens in.
void check_roles(const messages_t& messages) {
  constexpr std::array<std::string_view, 5> known = {"system", "developer", "user", "assistant",
                                                     "tool"};
  if (messages.empty())
    throw std::invalid_argument("messages must not be empty");
  for (const auto& m : messages)
    if (std::find(known.begin(), known.end(), m.role) == known.end())
      throw std::invalid_argument("unknown role '" + m.role + "'");
}

bool is_space(char32_t c) { // str.isspace() of Python
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

std::string_view strip(std::string_view text) {
  for (auto c = decode_utf8(text); c.bytes > 0 && is_space(c.code); c = decode_utf8(text))
    text.remove_prefix(c.bytes);
  while (!text.empty()) {
    auto start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0U) == 0x80U)
      --start;
    const auto c = decode_utf8(text.substr(start));
    if (c.bytes == 0 || start + c.bytes != text.size() || !is_space(c.code))
      break;
    text = text.substr(0, start);
  }
  return text;
}

std::string_view strip_line_ends(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && text.front() == '\n')
    text.remove_prefix(1);
  while (right && !text.empty() && text.back() == '\n')
    text.remove_suffix(1);
  return text;
}

std::string im(std::string_view role, std::string_view content) {
  return "<|im_start|>" + std::string(role) + "\n" + std::string(content) + "<|im_end|>\n";
}

// Neighbouring tool answers share one user message.
std::string tool_response(const messages_t& messages, std::size_t i) {
  std::string out;
  if (i == 0 || messages[i - 1].role != "tool")
    out += "<|im_start|>user";
  out += "\n<tool_response>\n" + messages[i].content + "\n</tool_response>";
  if (i + 1 == messages.size() || messages[i + 1].role != "tool")
    out += "<|im_end|>\n";
  return out;
}

class chatml final : public chat_template {
public:
  chatml(std::string name, std::string system, tool_style tools)
      : name_(std::move(name)), system_(std::move(system)), tools_(tools) {}
  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] std::string render(const messages_t& messages, bool prompt) const override {
    check_roles(messages);
    std::string out;
    if (!system_.empty() && messages.front().role != "system")
      out += im("system", system_);
    for (std::size_t i = 0; i < messages.size(); ++i)
      out += tools_ == tool_style::as_response && messages[i].role == "tool"
                 ? tool_response(messages, i)
                 : im(messages[i].role, messages[i].content);
    return prompt ? out + "<|im_start|>assistant\n" : out;
  }

private:
  std::string name_, system_;
  tool_style tools_;
};

// Thoughts of turns before the last question are left out; a closing answer shows its own.
class qwen3 final : public chat_template {
public:
  [[nodiscard]] std::string name() const override { return "qwen3"; }
  [[nodiscard]] std::string render(const messages_t& messages, bool prompt) const override {
    check_roles(messages);
    std::size_t last_question = messages.size() - 1;
    for (std::size_t i = messages.size(); i-- > 0;)
      if (messages[i].role == "user" && !is_response(messages[i].content)) {
        last_question = i;
        break;
      }
    std::string out;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const auto& m = messages[i];
      if (m.role == "tool")
        out += tool_response(messages, i);
      else if (m.role == "assistant")
        out += im(m.role, answer(m.content, i > last_question, i + 1 == messages.size()));
      else
        out += im(m.role, m.content);
    }
    return prompt ? out + "<|im_start|>assistant\n" : out;
  }

private:
  static bool is_response(std::string_view text) {
    constexpr std::string_view open = "<tool_response>";
    constexpr std::string_view close = "</tool_response>";
    return text.size() >= close.size() && text.substr(0, open.size()) == open &&
           text.substr(text.size() - close.size()) == close;
  }

  static std::string answer(const std::string& text, bool after_question, bool last) {
    constexpr std::string_view open = "<think>";
    constexpr std::string_view close = "</think>";
    std::string_view content = text;
    std::string_view thought;
    if (const auto end = content.find(close); end != std::string_view::npos) {
      thought = strip_line_ends(content.substr(0, end), false, true);
      if (const auto begin = thought.rfind(open); begin != std::string_view::npos)
        thought.remove_prefix(begin + open.size());
      thought = strip_line_ends(thought, true, false);
      content = strip_line_ends(content.substr(content.rfind(close) + close.size()), true, false);
    }
    if (!after_question || (!last && thought.empty()))
      return std::string(content);
    return "<think>\n" + std::string(strip_line_ends(thought, true, true)) + "\n</think>\n\n" +
           std::string(strip_line_ends(content, true, false));
  }
};

// Llama 2 and Mistral: an optional system text, then user and assistant in turn.
struct turns {
  bool has_system = false;
  std::string_view system;
  std::size_t first = 0;

  turns(const messages_t& messages, bool allow_system, const char* family) {
    check_roles(messages);
    if (messages.front().role == "system" || messages.front().role == "developer") {
      if (!allow_system)
        throw std::invalid_argument(std::string(family) + " takes no system message");
      has_system = true;
      system = messages.front().content;
      first = 1;
    }
    for (std::size_t i = first; i < messages.size(); ++i)
      if (messages[i].role != ((i - first) % 2 == 0 ? "user" : "assistant"))
        throw std::invalid_argument(std::string(family) +
                                    ": roles must alternate user, assistant, user, ...");
    if (first == messages.size())
      throw std::invalid_argument(std::string(family) + " needs a user message");
  }
};

class llama2 final : public chat_template {
public:
  explicit llama2(template_tokens tokens) : tokens_(std::move(tokens)) {}
  [[nodiscard]] std::string name() const override { return "llama2"; }
  [[nodiscard]] std::string render(const messages_t& messages, bool) const override {
    const turns t(messages, true, "llama2");
    std::string out;
    for (std::size_t i = t.first; i < messages.size(); ++i) {
      std::string content = messages[i].content;
      if (i == t.first && t.has_system)
        content = "<<SYS>>\n" + std::string(t.system) + "\n<</SYS>>\n\n" + content;
      if (messages[i].role == "user")
        out += tokens_.bos + "[INST] " + std::string(strip(content)) + " [/INST]";
      else
        out += " " + std::string(strip(content)) + " " + tokens_.eos;
    }
    return out;
  }

private:
  template_tokens tokens_;
};

class llama3 final : public chat_template {
public:
  llama3(template_tokens tokens, bool dated) : tokens_(std::move(tokens)), dated_(dated) {}
  [[nodiscard]] std::string name() const override { return dated_ ? "llama3.1" : "llama3"; }
  [[nodiscard]] std::string render(const messages_t& messages, bool prompt) const override {
    check_roles(messages);
    std::string out = tokens_.bos;
    std::size_t first = 0;
    if (dated_) {
      std::string_view system;
      if (messages.front().role == "system") {
        system = strip(messages.front().content);
        first = 1;
      }
      out += header("system") +
             "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"
             "\n\n" +
             std::string(system) + "<|eot_id|>";
    }
    for (std::size_t i = first; i < messages.size(); ++i) {
      const auto& m = messages[i];
      out += header(dated_ && m.role == "tool" ? "ipython" : m.role) +
             std::string(strip(m.content)) + "<|eot_id|>";
    }
    return prompt ? out + header("assistant") : out;
  }

private:
  static std::string header(const std::string& role) {
    return "<|start_header_id|>" + role + "<|end_header_id|>\n\n";
  }
  template_tokens tokens_;
  bool dated_;
};

class mistral final : public chat_template {
public:
  mistral(template_tokens tokens, mistral_form form) : tokens_(std::move(tokens)), form_(form) {}
  [[nodiscard]] std::string name() const override { return "mistral"; }
  [[nodiscard]] std::string render(const messages_t& messages, bool) const override {
    const bool first_form = form_ == mistral_form::v1 || form_ == mistral_form::v1_spaced;
    const turns t(messages, !first_form, "mistral");
    std::string out = tokens_.bos;
    for (std::size_t i = t.first; i < messages.size(); ++i) {
      const auto& content = messages[i].content;
      if (messages[i].role == "user") {
        const bool with_system =
            t.has_system && (form_ == mistral_form::v3 ? i + 1 == messages.size() : i == t.first);
        out += form_ == mistral_form::v2 ? " [INST] " : "[INST] ";
        if (with_system)
          out += std::string(t.system) + "\n\n";
        out += content;
        out += form_ == mistral_form::v3 ? "[/INST]" : " [/INST]";
      } else if (first_form) {
        out += content + tokens_.eos + (form_ == mistral_form::v1_spaced ? " " : "");
      } else {
        out +=
            " " + (form_ == mistral_form::v3 ? std::string(strip(content)) : content) + tokens_.eos;
      }
    }
    return out;
  }

private:
  template_tokens tokens_;
  mistral_form form_;
};

} // namespace

std::shared_ptr<const chat_template> make_chatml(std::string name, std::string default_system,
                                                 tool_style tools) {
  return std::make_shared<chatml>(std::move(name), std::move(default_system), tools);
}

std::shared_ptr<const chat_template> make_qwen3() {
  return std::make_shared<qwen3>();
}

std::shared_ptr<const chat_template> make_llama2(template_tokens tokens) {
  return std::make_shared<llama2>(std::move(tokens));
}

std::shared_ptr<const chat_template> make_llama3(template_tokens tokens, bool dated) {
  return std::make_shared<llama3>(std::move(tokens), dated);
}

std::shared_ptr<const chat_template> make_mistral(template_tokens tokens, mistral_form form) {
  return std::make_shared<mistral>(std::move(tokens), form);
}

} // namespace hexgen::compute
