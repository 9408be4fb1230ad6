// Structured output: which tokens may come next, so that the text becomes a value of a schema.
#pragma once

#include "compute/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace hexgen::compute {

class grammar_automaton;

/// `text` is "json_object" or a JSON schema. Compiled grammars are kept for later sequences (the
/// last few of a process). Thread-safe. Throws std::invalid_argument saying what cannot be served.
[[nodiscard]] std::shared_ptr<grammar_automaton>
compile_grammar(const std::string& text, const std::shared_ptr<const tokenizer>& tokens);

/// One sequence's place in a grammar: a pure function of the grammar and the accepted ids.
/// Several matchers may share an automaton from several threads.
class grammar_matcher {
public:
  explicit grammar_matcher(std::shared_ptr<grammar_automaton> automaton);
  /// Sets the logits of all tokens that may not come next to -infinity. End tokens may come when
  /// the value is complete, and only they may come after an end token or a token that did not fit.
  void mask(std::span<float> logits);
  void accept(token_id id);
  /// The text so far is a whole value.
  [[nodiscard]] bool complete();

private:
  std::int32_t here();
  std::shared_ptr<grammar_automaton> automaton_;
  std::string text_;        // what was accepted: the automaton's memory may be swept
  std::uint64_t epoch_ = 0; // of the automaton, when state_ was valid
  std::int32_t state_ = 0;
  bool ended_ = false;
};

} // namespace hexgen::compute
