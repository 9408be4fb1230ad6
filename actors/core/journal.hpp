// What the router knows of one sequence: enough to go on with it anywhere.
#pragma once

#include "actors/core/wire.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace hexgen::actors {

/// Owned by the router, one per choice of a request. Tokens enter once, in order.
class journal {
public:
  journal(std::uint64_t request, std::vector<compute::token_id> prompt,
          compute::sampling_params params);

  enum class verdict {
    taken, // the tokens follow what is here
    stale, // of an attempt that was given up: dropped
    gap,   // they do not follow: the attempt cannot be believed
  };
  /// Judges a chunk and takes its tokens when they follow.
  verdict take(const wire::token_chunk& chunk);
  /// Before the first chunk: tokens of an earlier life of the answer.
  void restore(std::vector<compute::token_id> emitted) { emitted_ = std::move(emitted); }
  /// The current attempt is given up; chunks of it are stale from now on.
  void next_attempt();
  /// What a replica needs to go on from here.
  [[nodiscard]] wire::submit resume(std::uint64_t replica, std::uint64_t generation) const;

  [[nodiscard]] std::uint64_t request() const { return request_; }
  [[nodiscard]] std::uint32_t attempt() const { return attempt_; }
  [[nodiscard]] std::span<const compute::token_id> prompt() const { return prompt_; }
  [[nodiscard]] std::span<const compute::token_id> emitted() const { return emitted_; }
  [[nodiscard]] const compute::sampling_params& params() const { return params_; }

private:
  std::uint64_t request_;
  std::uint32_t attempt_ = 0;
  std::vector<compute::token_id> prompt_, emitted_;
  compute::sampling_params params_;
};

} // namespace hexgen::actors
