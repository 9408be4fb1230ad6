// How keys and values lie in one block of the KV pool.
#pragma once

#include "compute/executor.hpp"
#include "compute/step.hpp"

#include <cstddef>

namespace hexgen::compute {

/// One KV head's part of a block, `head_dim` padded to whole lanes (the padding of keys is zero):
/// keys [dim][16 positions], values [16 positions][dim], then for q8 the keys' and the values'
/// scales, 16 f32 each. Keys lie across the lanes so that a score needs no shuffles.
struct kv_layout {
  kv_type type = kv_type::f32;
  int head_dim = 0;

  [[nodiscard]] int padded() const { return (head_dim + 15) / 16 * 16; }
  [[nodiscard]] constexpr std::size_t element() const {
    return type == kv_type::f32 ? 4 : type == kv_type::q8 ? 1 : 2;
  }
  [[nodiscard]] std::size_t values_offset() const {
    return element() * static_cast<std::size_t>(padded()) * block_tokens;
  }
  [[nodiscard]] std::size_t scales_offset() const { return 2 * values_offset(); }
  [[nodiscard]] std::size_t head_bytes() const {
    const std::size_t scales = type == kv_type::q8 ? 2 * block_tokens * sizeof(float) : 0;
    return scales_offset() + scales;
  }
};

} // namespace hexgen::compute
