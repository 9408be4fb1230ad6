// Step messages between the wire and the types that compute with them, checked once.
#pragma once

#include "compute/sampler.hpp"
#include "compute/step.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hexgen::actors {

struct sequence_open {
  std::uint64_t sequence = 0;
  compute::sampling_params params;
  std::vector<compute::token_id> prompt;
  std::vector<compute::token_id> emitted;
};

/// A STEP or RANK_STEP message's head.
struct step_head {
  std::uint64_t replica = 0, generation = 0, number = 0;
  std::uint32_t stage = 0, rank = 0;
  compute::step step;
  std::vector<compute::token_id> ids;
  std::vector<sequence_open> opens;
  std::vector<std::uint64_t> closes;
  std::vector<std::uint64_t> stage_us;
};

/// A COLLECTIVE message's head.
struct collective_head {
  std::uint64_t replica = 0, generation = 0, number = 0;
  std::uint32_t index = 0, rank = 0, to_rank = 0, stage = 0;
};

/// Which generation's which rank a data frame is for.
struct frame_key {
  std::uint64_t replica = 0, generation = 0;
  std::uint32_t stage = 0, rank = 0;
  friend bool operator==(const frame_key&, const frame_key&) = default;
};

struct sampled_row {
  std::uint64_t sequence = 0;
  std::int32_t index = 0;
  compute::sampled_token token;
};

struct step_result {
  std::uint64_t replica = 0, generation = 0, number = 0;
  std::vector<sampled_row> tokens;
  std::vector<std::uint64_t> stage_us;
  std::string error;
};

/// Each decoder returns nothing, and says in `why`, when the bytes are not a message or a field is
/// out of range. Limits: step_limits below.
[[nodiscard]] std::optional<step_head> decode_step(const std::string& head, std::string& why);
[[nodiscard]] std::optional<collective_head> decode_collective(const std::string& head,
                                                               std::string& why);
[[nodiscard]] std::optional<step_result> decode_step_result(const std::string& head,
                                                            std::string& why);

[[nodiscard]] std::string encode(const step_head& head);
[[nodiscard]] std::string encode(const collective_head& head);
[[nodiscard]] std::string encode(const step_result& result);

struct step_limits {
  static constexpr int entries = 4096;
  static constexpr int tokens = 1 << 16; // of one step
  static constexpr int position = 1 << 24;
  static constexpr int sequence_tokens = 1 << 22; // prompt or emitted ids of an open
  static constexpr int ranks = 64;
  static constexpr int stages = 1024;
};

} // namespace hexgen::actors
