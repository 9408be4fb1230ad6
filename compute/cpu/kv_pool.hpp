// The paged KV cache of one rank: blocks of 16 positions for its layers and KV heads.
#pragma once

#include "compute/cpu/arena.hpp"
#include "compute/cpu/kv_layout.hpp"

#include <cstdint>

namespace hexgen::compute {

/// Memory order: [block][layer][KV head] of kv_layout. A block is contiguous, so that copying it
/// is one move.
class kv_pool {
public:
  kv_pool(const kv_layout& layout, int layers, int kv_heads)
      : layout_(layout), heads_(static_cast<std::size_t>(kv_heads)),
        block_bytes_(layout.head_bytes() * heads_ * static_cast<std::size_t>(layers)) {}

  /// Throws std::bad_alloc.
  void allocate(std::uint32_t blocks) {
    memory_ = page_buffer(); // the old pool goes first
    memory_ = page_buffer(block_bytes_ * blocks);
    blocks_ = blocks;
  }
  [[nodiscard]] const kv_layout& layout() const { return layout_; }
  [[nodiscard]] std::uint32_t blocks() const { return blocks_; }
  [[nodiscard]] std::size_t block_bytes() const { return block_bytes_; }
  /// Where block 0 keeps `head` of `layer`; other blocks lie block_bytes() apart.
  [[nodiscard]] std::byte* head(int layer, int head) const {
    const auto index = static_cast<std::size_t>(layer) * heads_ + static_cast<std::size_t>(head);
    return memory_.data() + index * layout_.head_bytes();
  }
  void copy_block(std::uint32_t from, std::uint32_t to);

private:
  kv_layout layout_;
  std::size_t heads_;
  std::size_t block_bytes_;
  std::uint32_t blocks_ = 0;
  page_buffer memory_;
};

} // namespace hexgen::compute
