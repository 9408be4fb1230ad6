#include "scheduler/engine/block_pool.hpp"

#include <algorithm>

namespace hexgen::scheduler {

block_pool::block_pool(std::uint32_t blocks, bool prefix_cache, hash_key key)
    : allocator_(blocks), index_(key), blocks_(blocks), prefix_cache_(prefix_cache) {}

void block_pool::inherit(std::span<const indexed_block> kept) {
  if (!prefix_cache_)
    return;
  for (const auto& k : kept) {
    if (k.block >= blocks() || index_.contains(k.block))
      continue;
    index_.insert(k.parent, k.tokens, k.block);
    if (!index_.contains(k.block))
      continue;
    allocator_.claim(k.block);
    blocks_[k.block].hollow = true;
    drop_holder(k.block);
  }
}

std::uint32_t block_pool::blocks() const {
  return allocator_.blocks();
}

std::uint32_t block_pool::available() const {
  return allocator_.free() + index_.parked();
}

std::uint32_t block_pool::holders(block_id block) const {
  return allocator_.holders(block);
}

block_pool::prefix block_pool::match(std::span<const token> tokens, std::size_t limit) {
  prefix found;
  if (!prefix_cache_)
    return found;
  limit = std::min(limit, tokens.size() / kv_block_tokens);
  std::uint64_t parent = prefix_index::root;
  for (std::size_t i = 0; i < limit; ++i) {
    const auto hit = index_.find(parent, tokens.subspan(i * kv_block_tokens, kv_block_tokens));
    if (!hit)
      break;
    add_holder(hit->block);
    found.blocks.push_back(hit->block);
    found.hashes.push_back(hit->hash);
    parent = hit->hash;
  }
  return found;
}

std::uint64_t block_pool::publish(std::uint64_t parent, std::span<const token> tokens,
                                  block_id block, std::uint64_t step) {
  blocks_[block].written_by = step;
  return prefix_cache_ ? index_.insert(parent, tokens, block) : prefix_index::root;
}

std::vector<indexed_block> block_pool::kept() const {
  auto out = index_.all();
  std::erase_if(out, [this](const indexed_block& b) {
    return hollow(b.block) || written_by(b.block) > allocator_.returned();
  });
  return out;
}

void block_pool::filled(block_id block, std::uint64_t step) {
  blocks_[block] = {step, false};
}

std::optional<block_id> block_pool::allocate() {
  if (const auto block = allocator_.allocate()) {
    blocks_[*block] = {};
    return block;
  }
  // Parked blocks are at rest (drop_holder), so an evicted one is free at once.
  if (const auto block = index_.evict()) {
    allocator_.recycle(*block);
    blocks_[*block] = {};
    return allocator_.allocate();
  }
  return std::nullopt;
}

void block_pool::add_holder(block_id block) {
  index_.unpark(block);
  std::erase(resting_, block);
  allocator_.add_holder(block);
}

void block_pool::drop_holder(block_id block) {
  if (!allocator_.drop_holder(block))
    return;
  if (!index_.contains(block))
    allocator_.recycle(block);
  else if (allocator_.in_flight(block))
    resting_.push_back(block);
  else
    index_.park(block);
}

void block_pool::named(block_id block, std::uint64_t step) {
  allocator_.named(block, step);
}

void block_pool::returned(std::uint64_t step) {
  allocator_.returned(step);
  std::erase_if(resting_, [this](block_id block) {
    if (allocator_.in_flight(block))
      return false;
    index_.park(block);
    return true;
  });
}

} // namespace hexgen::scheduler
