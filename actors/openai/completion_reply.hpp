// The JSON of chat and completion answers, whole and in chunks.
#pragma once

#include "actors/core/generation.hpp"

#include <string>
#include <vector>

namespace hexgen::actors {

/// What every chunk of one answer shares.
struct reply_frame {
  std::string id;
  std::int64_t created_s = 0;
  std::string model;
  bool chat = false;
  bool logprobs = false;
  bool token_ids = false;
  bool usage_null = false; // chunks before the usage chunk say "usage": null
  std::shared_ptr<const compute::tokenizer> tokens;
};

struct reply_usage {
  int prompt_tokens = 0;
  int completion_tokens = 0;
  int cached_tokens = 0;
};

/// One choice's text so far, or a piece of it.
struct reply_choice {
  int index = 0;
  std::string text;
  std::vector<generation_token> tokens;
  std::string finish_reason;   // empty: null
  bool first = false;          // chunks: carries the role
  std::size_t text_offset = 0; // bytes of this choice's text before `text`
};

/// Times of a request as the gateway saw them, in milliseconds.
struct reply_times {
  double time_to_first_token_ms = 0;
  double generation_time_ms = 0; // first token to last
  double tokens_per_second = 0;
};

[[nodiscard]] std::string chunk_json(const reply_frame& frame, const reply_choice& choice,
                                     const reply_usage* usage_so_far);
/// The chunk with empty choices.
[[nodiscard]] std::string usage_chunk_json(const reply_frame& frame, const reply_usage& usage);
[[nodiscard]] std::string whole_json(const reply_frame& frame,
                                     const std::vector<reply_choice>& choices,
                                     const reply_usage& usage, const reply_times& times);

} // namespace hexgen::actors
