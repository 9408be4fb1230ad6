// Cuts text into words before byte pair encoding, by the model family's regular expressions.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

/// One cut: every match of `pattern` becomes a word, and so does what lies between matches.
/// `pattern` is PCRE2 syntax over Unicode; `\s` means Unicode's White_Space. A literal is matched
/// as it stands.
struct split_rule {
  std::string pattern;
  bool literal = false;
  bool drop_matches = false; // matches are removed instead of becoming words
  bool drop_rest = false;    // what lies between matches is removed
};

/// The rules of a GGUF `tokenizer.ggml.pre` name: default, gpt-2, smollm, llama-bpe, qwen2 and
/// those that split the same way. Throws std::invalid_argument naming what is known.
[[nodiscard]] std::vector<split_rule> split_rules_of(std::string_view pre);

/// GPT-2's rule, which tokenizer.json's ByteLevel step applies by itself.
[[nodiscard]] split_rule gpt2_split_rule();

/// Immutable and thread-safe. Rules apply one after the other, each within the words of the one
/// before. Compiled with the just-in-time compiler where the machine has it.
class pretokenizer {
public:
  /// Throws std::invalid_argument for a pattern that cannot be compiled.
  explicit pretokenizer(const std::vector<split_rule>& rules);
  ~pretokenizer();
  pretokenizer(pretokenizer&&) noexcept;
  pretokenizer& operator=(pretokenizer&&) noexcept;

  /// The words of `text` (well-formed UTF-8), in order; together they are the text unless a rule
  /// drops parts. Throws std::runtime_error when a pattern needs more than its limit of steps.
  [[nodiscard]] std::vector<std::string_view> split(std::string_view text) const;

private:
  class compiled_rule;
  std::vector<std::unique_ptr<compiled_rule>> rules_;
};

} // namespace hexgen::compute
