// Tokens that may come next, from the sequence itself: what followed its last few tokens when they
// came before.
#pragma once

#include "scheduler/engine/types.hpp"

#include <span>

namespace hexgen::scheduler {

/// Drafts for one sequence. They are computed along with its next token, and the sampler decides
/// which of them stand, so a wrong one costs time and changes nothing. Pure; not thread-safe.
class draft_proposer {
public:
  static constexpr std::size_t longest_match = 4, shortest_match = 2; // tokens

  /// `most`: tokens of one draft; 0: none.
  explicit draft_proposer(std::size_t most) : most_(most), next_(most) {}

  /// What followed the latest of the longest runs that equal the end of `tokens`; past that end it
  /// goes on with itself, so that a text that goes round in circles gives long drafts. At most
  /// `room` tokens; none when the last two tokens never came before.
  [[nodiscard]] std::vector<token> propose(std::span<const token> tokens, std::size_t room) const;

  /// Of a draft of `drafted` tokens the first `accepted` stood. The next one is at most twice that
  /// and one more: a text that does not repeat itself pays for one token a step.
  void verified(std::size_t drafted, std::size_t accepted);

private:
  std::size_t most_, next_;
};

} // namespace hexgen::scheduler
