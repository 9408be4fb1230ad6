// One choice's tokens to the text that its client sees.
#pragma once

#include "actors/core/generation.hpp"
#include "compute/text/stop_matcher.hpp"
#include "compute/text/utf8_stream.hpp"

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace hexgen::actors {

/// Whole characters, no half stop string, and a token only when all of its text may be shown.
class answer_stream {
public:
  /// Stop strings count from the token `min_tokens` on.
  answer_stream(std::shared_ptr<const compute::tokenizer> tokens, std::vector<std::string> stop,
                bool skip_special, int min_tokens);

  struct output {
    std::string text;
    std::vector<generation_token> tokens;
    std::string finish_reason; // not empty: nothing follows
  };
  /// Takes the next token into `out`; after a finish reason nothing more is taken.
  void push(const compute::sampled_token& token, output& out);

  [[nodiscard]] int completion_tokens() const { return taken_; }

private:
  struct waiting_token {
    generation_token token;
    std::size_t begin = 0, end = 0; // of its text, in bytes of the whole
  };
  void release(output& out);
  void finish(const char* reason, output& out);

  std::shared_ptr<const compute::tokenizer> tokens_;
  compute::utf8_stream characters_;
  compute::stop_matcher stops_;
  bool skip_special_;
  int min_tokens_;
  int taken_ = 0;
  std::size_t made_ = 0, shown_ = 0; // bytes of text
  std::deque<waiting_token> waiting_;
  bool finished_ = false;
};

} // namespace hexgen::actors
