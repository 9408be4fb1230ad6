// What the engine's policies talk about: numbers only, no wire and no device types.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace hexgen::scheduler {

using sequence_id = std::uint64_t;
using block_id = std::uint32_t;
using token = std::int32_t;
using time_us = std::uint64_t; // of any one monotonic clock

inline constexpr int kv_block_tokens = 16; // positions of one KV block

/// Blocks that hold `tokens` positions.
[[nodiscard]] constexpr std::uint64_t blocks_for(std::uint64_t tokens) {
  return (tokens + kv_block_tokens - 1) / kv_block_tokens;
}

} // namespace hexgen::scheduler
