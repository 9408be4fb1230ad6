#include "actors/core/journal.hpp"

#include <utility>

namespace hexgen::actors {

journal::journal(std::uint64_t request, std::vector<compute::token_id> prompt,
                 compute::sampling_params params)
    : request_(request), prompt_(std::move(prompt)), params_(std::move(params)) {}

journal::verdict journal::take(const wire::token_chunk& chunk) {
  if (chunk.request != request_ || chunk.attempt != attempt_)
    return verdict::stale;
  if (chunk.tokens.empty() || chunk.index < 0 ||
      static_cast<std::size_t>(chunk.index) != emitted_.size())
    return verdict::gap;
  int index = chunk.index;
  for (const auto& t : chunk.tokens)
    if (t.index != index++)
      return verdict::gap;
  for (const auto& t : chunk.tokens)
    emitted_.push_back(t.token.id);
  return verdict::taken;
}

void journal::next_attempt() {
  ++attempt_;
}

wire::submit journal::resume(std::uint64_t replica, std::uint64_t generation) const {
  wire::submit m;
  m.request = request_;
  m.attempt = attempt_;
  m.replica = replica;
  m.generation = generation;
  m.prompt = prompt_;
  m.emitted = emitted_;
  m.params = params_;
  return m;
}

} // namespace hexgen::actors
