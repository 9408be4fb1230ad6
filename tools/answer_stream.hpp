// A streamed answer on its way to the terminal, for `chat` and `generate`.
#pragma once

#include "actors/shell/fabric_session.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace hexgen::tools {

struct answer {
  std::string text;
  int prompt_tokens = 0, completion_tokens = 0;
  std::string finish_reason;
  double first_token_s = 0; // since the request left; 0: none came
  double seconds = 0;       // since the first token
  /// Tokens after the first, by the time that they took.
  [[nodiscard]] double tokens_per_s() const {
    return completion_tokens > 1 && seconds > 0 ? (completion_tokens - 1) / seconds : 0;
  }
  [[nodiscard]] std::string summary() const;
};

/// Sends `body` (streaming is switched on) and, with `show`, prints text as it comes. A request for
/// a chat reads `delta.content`, one for a completion `text`. Throws std::runtime_error with the
/// server's words.
answer stream_answer(actors::fabric_session& session, const std::string& path, nlohmann::json body,
                     bool show);

} // namespace hexgen::tools
