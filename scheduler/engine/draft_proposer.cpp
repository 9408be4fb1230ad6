#include "scheduler/engine/draft_proposer.hpp"

#include <algorithm>

namespace hexgen::scheduler {

std::vector<token> draft_proposer::propose(std::span<const token> tokens, std::size_t room) const {
  const std::size_t size = tokens.size(), most = std::min(room, next_);
  if (most == 0)
    return {};
  std::size_t longest = 0, from = 0;
  for (std::size_t end = size; end-- > 1 && longest < longest_match;) {
    std::size_t match = 0; // tokens before `end` that equal those at the end of the sequence
    while (match < longest_match && match < end &&
           tokens[end - 1 - match] == tokens[size - 1 - match])
      ++match;
    if (match > longest) {
      longest = match;
      from = end;
    }
  }
  if (longest < shortest_match)
    return {};
  std::vector<token> draft;
  for (std::size_t i = from; draft.size() < most; ++i)
    draft.push_back(i < size ? tokens[i] : draft[i - size]);
  return draft;
}

void draft_proposer::verified(std::size_t drafted, std::size_t accepted) {
  const std::size_t next = std::min(most_, 2 * accepted + 1);
  next_ = accepted == drafted ? std::max(next_, next) : next;
}

} // namespace hexgen::scheduler
