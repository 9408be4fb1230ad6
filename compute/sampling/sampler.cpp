#include "compute/sampler.hpp"

#include "compute/cpu/exact_double.hpp"
#include "compute/sampling/exact_math.hpp"
#include "compute/sampling/grammar.hpp"
#include "compute/sampling/penalties.hpp"
#include "compute/sampling/philox.hpp"
#include "compute/sampling/selection.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace hexgen::compute {

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();
constexpr float most = std::numeric_limits<float>::max();
constexpr float greedy_below = 1e-5F; // vLLM's limit: below it a division would lose all meaning

void require(bool fits, const char* what) {
  if (!fits)
    throw std::invalid_argument(what);
}

void check(const sampling_params& p) {
  require(std::isfinite(p.temperature) && p.temperature >= 0, "temperature must be 0 or more");
  require(p.top_p > 0 && p.top_p <= 1, "top_p must be in (0, 1]");
  require(p.min_p >= 0 && p.min_p <= 1, "min_p must be in [0, 1]");
  require(std::isfinite(p.repetition_penalty) && p.repetition_penalty > 0,
          "repetition_penalty must be above 0");
  require(std::isfinite(p.presence_penalty), "presence_penalty must be finite");
  require(std::isfinite(p.frequency_penalty), "frequency_penalty must be finite");
  for (const auto& [id, bias] : p.logit_bias)
    require(!std::isnan(bias), "logit_bias must be a number");
}

// What a broken model could give must still lead to a token: NaN and -infinity count as the
// lowest logit, +infinity as the highest. -infinity then means "forbidden".
void make_finite(std::span<float> logits) {
  for (float& l : logits) {
    l = l >= -most ? l : -most; // NaN too
    l = l <= most ? l : most;
  }
}

} // namespace

struct sequence_sampler::impl {
  sampling_params params;
  std::shared_ptr<const tokenizer> tokens;
  std::vector<token_id> ends; // sorted: ids that end the sequence
  penalty_counts penalties;
  std::unique_ptr<grammar_matcher> grammar;
  token_selector selector;
  std::vector<float> raw; // the model's own logits, kept when logprobs are asked for
  int generated = 0;

  impl(sampling_params p, std::shared_ptr<const tokenizer> t)
      : params(std::move(p)), tokens(std::move(t)),
        penalties(params.repetition_penalty, params.presence_penalty, params.frequency_penalty) {
    check(params);
    ends = params.stop_ids;
    if (!params.ignore_eos)
      ends.insert(ends.end(), tokens->end_ids().begin(), tokens->end_ids().end());
    std::sort(ends.begin(), ends.end());
    if (!params.grammar.empty())
      grammar = std::make_unique<grammar_matcher>(compile_grammar(params.grammar, tokens));
  }

  void accept(token_id id) {
    penalties.add_output(id);
    if (grammar)
      grammar->accept(id);
    ++generated;
  }

  /// Takes the chosen token and says whether it is the last.
  void accept(sampled_token& chosen) {
    accept(chosen.id);
    chosen.ends = ends_with(chosen.id);
    if (!chosen.ends && generated >= params.max_tokens)
      chosen.ends = chosen.ends_by_length = true;
  }

  [[nodiscard]] double draw(int ahead = 0) const {
    return uniform_draw(params.seed, params.choice, static_cast<std::uint64_t>(generated + ahead));
  }

  [[nodiscard]] bool ends_with(token_id id) const {
    return std::binary_search(ends.begin(), ends.end(), id);
  }

  void mask(std::span<float> logits) {
    if (grammar)
      grammar->mask(logits);
    for (const auto& [id, bias] : params.logit_bias)
      if (id >= 0 && static_cast<std::size_t>(id) < logits.size()) {
        float& l = logits[static_cast<std::size_t>(id)];
        // A bias of -infinity forbids; what is forbidden stays so.
        l = l == forbidden || bias == forbidden ? forbidden : std::clamp(l + bias, -most, most);
      }
    if (generated < params.min_tokens)
      for (const auto id : ends)
        if (id >= 0 && static_cast<std::size_t>(id) < logits.size())
          logits[static_cast<std::size_t>(id)] = forbidden;
    penalties.apply(logits);
  }

  token_id choose(std::span<float> logits) {
    if (params.temperature < greedy_below)
      return token_selector::argmax(logits);
    return selector.draw(logits, {params.temperature, params.top_k, params.top_p, params.min_p},
                         draw());
  }

  // Of the model's own distribution: log_softmax of the logits before anything changed them.
  void fill_logprobs(sampled_token& out) {
    const auto best = token_selector::argmax(raw);
    const float highest = raw[static_cast<std::size_t>(best)];
    const float chosen = raw[static_cast<std::size_t>(out.id)];
    std::vector<scored_token> likeliest;
    selector.top(raw, static_cast<std::size_t>(params.logprobs), likeliest);
    exact_exp_shifted(raw, highest, raw);
    const double log_sum = exact_log(exact_sum(raw)) + static_cast<double>(highest);
    const auto logprob = [&](float logit) {
      return static_cast<float>(static_cast<double>(logit) - log_sum);
    };
    out.logprob = logprob(chosen);
    for (const auto& t : likeliest)
      out.top.push_back({t.id, logprob(t.score)});
  }
};

sequence_sampler::sequence_sampler(sampling_params params, std::span<const token_id> prompt,
                                   std::span<const token_id> emitted,
                                   std::shared_ptr<const tokenizer> tokens)
    : impl_(std::make_unique<impl>(std::move(params), std::move(tokens))) {
  impl_->penalties.add_prompt(prompt);
  for (const auto id : emitted)
    impl_->accept(id);
}

sequence_sampler::~sequence_sampler() = default;
sequence_sampler::sequence_sampler(sequence_sampler&&) noexcept = default;
sequence_sampler& sequence_sampler::operator=(sequence_sampler&&) noexcept = default;

sampled_token sequence_sampler::next(std::span<float> logits) {
  if (logits.empty())
    throw std::invalid_argument("no logits to sample from");
  auto& s = *impl_;
  make_finite(logits);
  if (s.params.logprobs >= 0)
    s.raw.assign(logits.begin(), logits.end());
  s.mask(logits);
  sampled_token out;
  out.id = s.choose(logits);
  // Nothing may follow (a finished grammar of a model without an end token): the sequence ends.
  const bool stuck = out.id < 0;
  if (stuck)
    out.id = std::clamp(s.tokens->eos(), 0, static_cast<token_id>(logits.size()) - 1);
  if (s.params.logprobs >= 0)
    s.fill_logprobs(out);
  s.accept(out);
  out.ends = stuck || out.ends;
  return out;
}

std::optional<row_choice> sequence_sampler::choice(int ahead) const {
  const auto& s = *impl_;
  const auto& p = s.params;
  if (s.grammar || !p.logit_bias.empty() || p.logprobs >= 0 || s.generated + ahead < p.min_tokens ||
      s.penalties.active() || p.top_k > most_top_k)
    return std::nullopt;
  row_choice out;
  out.temperature = p.temperature;
  out.top_k = std::max(p.top_k, 0);
  out.top_p = p.top_p;
  out.min_p = p.min_p;
  if (p.temperature >= greedy_below)
    out.uniform = s.draw(ahead);
  return out;
}

sampled_token sequence_sampler::take(token_id id) {
  sampled_token out;
  out.id = id;
  impl_->accept(out);
  return out;
}

int sequence_sampler::generated() const {
  return impl_->generated;
}

} // namespace hexgen::compute
