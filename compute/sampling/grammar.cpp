#include "compute/sampling/grammar.hpp"

#include "compute/sampling/grammar_automaton.hpp"
#include "compute/sampling/json_schema.hpp"

#include <algorithm>
#include <limits>
#include <list>

namespace hexgen::compute {

namespace {

constexpr std::size_t kept_grammars = 16;
constexpr float forbidden = -std::numeric_limits<float>::infinity();

struct kept_grammar {
  std::string text;
  std::shared_ptr<grammar_automaton> automaton;
};

} // namespace

std::shared_ptr<grammar_automaton> compile_grammar(const std::string& text,
                                                   const std::shared_ptr<const tokenizer>& tokens) {
  static std::mutex mutex;
  static std::list<kept_grammar> kept; // the last used first
  const std::lock_guard lock(mutex);
  for (auto at = kept.begin(); at != kept.end(); ++at)
    if (at->text == text && &at->automaton->tokens() == tokens.get()) {
      kept.splice(kept.begin(), kept, at);
      return kept.front().automaton;
    }
  auto grammar = text == "json_object" ? json_object_grammar() : json_schema_grammar(text);
  auto automaton = std::make_shared<grammar_automaton>(std::move(grammar), tokens);
  kept.push_front({text, automaton});
  if (kept.size() > kept_grammars)
    kept.pop_back();
  return automaton;
}

grammar_matcher::grammar_matcher(std::shared_ptr<grammar_automaton> automaton)
    : automaton_(std::move(automaton)) {}

// The state behind text_; by replay when the automaton has forgotten its states.
std::int32_t grammar_matcher::here() {
  automaton_->sweep();
  if (epoch_ != automaton_->epoch()) {
    epoch_ = automaton_->epoch();
    state_ = automaton_->start();
    for (const char c : text_)
      state_ = automaton_->step(state_, static_cast<std::uint8_t>(c));
  }
  return state_;
}

void grammar_matcher::mask(std::span<float> logits) {
  const std::lock_guard lock(automaton_->mutex());
  const auto state = here();
  const auto vocab =
      std::min(logits.size(), static_cast<std::size_t>(automaton_->tokens().vocab()));
  std::fill(logits.begin() + static_cast<std::ptrdiff_t>(vocab), logits.end(), forbidden);
  if (ended_ || state == grammar_automaton::dead) {
    const auto ends = automaton_->tokens().end_ids();
    for (std::size_t i = 0; i < vocab; ++i)
      if (std::find(ends.begin(), ends.end(), static_cast<token_id>(i)) == ends.end())
        logits[i] = forbidden;
    return;
  }
  const auto& bits = automaton_->mask(state);
  for (std::size_t i = 0; i < vocab; ++i)
    if ((bits[i / 64] >> (i % 64) & 1U) == 0)
      logits[i] = forbidden;
}

void grammar_matcher::accept(token_id id) {
  const auto ends = automaton_->tokens().end_ids();
  const auto bytes = automaton_->tokens().piece(id, true);
  if (bytes.empty() || std::find(ends.begin(), ends.end(), id) != ends.end()) {
    ended_ = true;
    return;
  }
  const std::lock_guard lock(automaton_->mutex());
  auto state = here();
  for (const char c : bytes)
    state = automaton_->step(state, static_cast<std::uint8_t>(c));
  text_ += bytes;
  state_ = state;
}

bool grammar_matcher::complete() {
  const std::lock_guard lock(automaton_->mutex());
  return automaton_->accepting(here());
}

} // namespace hexgen::compute
