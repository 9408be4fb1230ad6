// From logits to a token: a pure function of (parameters, prompt, emitted ids, logits).
#pragma once

#include "compute/row_choice.hpp"
#include "compute/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace hexgen::compute {

struct sampling_params {
  float temperature = 1.0F; // 0: greedy
  float top_p = 1.0F;
  float min_p = 0.0F;
  int top_k = 0; // 0: off
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  std::uint64_t seed = 0;
  std::uint32_t choice = 0; // index of the choice when n > 1
  int max_tokens = 16;
  int min_tokens = 0;
  bool ignore_eos = false;
  int logprobs = -1; // -1: off; k: also the k likeliest tokens
  std::vector<token_id> stop_ids;
  std::vector<std::pair<token_id, float>> logit_bias;
  /// "": free; "json_object"; or a JSON schema's text. A grammar masks what may come next.
  std::string grammar;
};

struct token_logprob {
  token_id id = 0;
  float logprob = 0;
};

struct sampled_token {
  token_id id = 0;
  float logprob = 0;              // of the model's own distribution, when asked for
  std::vector<token_logprob> top; // likeliest first
  bool ends = false;              // an end or stop id, or the length limit: the last token
  bool ends_by_length = false;
};

/// One sequence's state (penalty counts, grammar): rebuilt by replay when a sequence is opened.
/// The uniform draw of position p is Philox4x32-10 of (seed, choice, p), p counted from the first
/// generated token, so a resumed sequence goes on as an undisturbed one.
class sequence_sampler {
public:
  /// `emitted`: what was already generated. `tokens` outlives the sampler.
  /// Throws std::invalid_argument for a grammar that cannot be compiled.
  sequence_sampler(sampling_params params, std::span<const token_id> prompt,
                   std::span<const token_id> emitted, std::shared_ptr<const tokenizer> tokens);
  ~sequence_sampler();
  sequence_sampler(sequence_sampler&&) noexcept;
  sequence_sampler& operator=(sequence_sampler&&) noexcept;

  /// Chooses the next token and takes it into the state. `logits` [vocab] is overwritten.
  sampled_token next(std::span<float> logits);
  /// What chooses the next token from unchanged logits, or the one after `ahead` more; nothing when
  /// that takes more than the logits (penalties, bias, grammar, logprobs, min_tokens).
  [[nodiscard]] std::optional<row_choice> choice(int ahead = 0) const;
  /// Takes a token that was chosen elsewhere by choice() into the state.
  sampled_token take(token_id id);
  [[nodiscard]] int generated() const;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

/// exp(x) without libm: the same bits on every machine (docs/design.md, Numerics).
[[nodiscard]] float exact_exp(float x);

} // namespace hexgen::compute
