#include "actors/openai/bounds.hpp"

#include <array>
#include <stdexcept>
#include <string>

namespace hexgen::actors {

namespace {

// Whole numbers beyond 2^53 are not exact in a double; seed is read as 64 bits and not by this
// table.
constexpr double most_tokens = 16.0 * 1024 * 1024;

constexpr std::array table = {
    number_bound{"temperature", 0, 2, false, true, true, "0 takes the likeliest token"},
    number_bound{"top_p", 0, 1, false, true, true, "nucleus sampling: keep this much probability"},
    number_bound{"top_k", -1, 1e6, true, true, true, "keep the k likeliest tokens; 0 or -1: all"},
    number_bound{"min_p", 0, 1, false, true, true,
                 "drop tokens less likely than this share of the likeliest"},
    number_bound{"repetition_penalty", 0.01, 10, false, true, true,
                 "divides the logits of tokens seen so far; 1: off"},
    number_bound{"presence_penalty", -2, 2, false, true, true, "once per token that was generated"},
    number_bound{"frequency_penalty", -2, 2, false, true, true, "per time a token was generated"},
    number_bound{"n", 1, bounds::choices, true, true, true, "choices per prompt"},
    number_bound{"best_of", 1, bounds::choices, true, false, true, "only as large as n"},
    number_bound{"max_tokens", 1, most_tokens, true, true, true, "most tokens to generate"},
    number_bound{"max_completion_tokens", 1, most_tokens, true, true, false,
                 "most tokens to generate; wins over max_tokens"},
    number_bound{"min_tokens", 0, most_tokens, true, true, true,
                 "tokens before an end token or stop may come"},
    number_bound{"top_logprobs", 0, 20, true, true, false, "likeliest tokens to list per position"},
    number_bound{"logprobs", 0, 20, true, false, true, "likeliest tokens to list per position"},
    number_bound{"priority", -1000, 1000, true, true, true, "smaller goes first"},
};

} // namespace

std::span<const number_bound> number_bounds() {
  return table;
}

const number_bound& bound_of(std::string_view name) {
  for (const auto& bound : table)
    if (bound.name == name)
      return bound;
  throw std::logic_error("no bound named " + std::string(name));
}

} // namespace hexgen::actors
