#include "scheduler/engine/block_allocator.hpp"

#include <algorithm>

namespace hexgen::scheduler {

block_allocator::block_allocator(std::uint32_t blocks) : slots_(blocks) {
  free_.reserve(blocks);
  for (block_id b = blocks; b > 0; --b)
    free_.push_back(b - 1); // low ids first
}

std::uint32_t block_allocator::blocks() const {
  return static_cast<std::uint32_t>(slots_.size());
}

std::uint32_t block_allocator::free() const {
  return static_cast<std::uint32_t>(free_.size());
}

std::uint32_t block_allocator::holders(block_id block) const {
  return slots_.at(block).holders;
}

std::optional<block_id> block_allocator::allocate() {
  if (free_.empty())
    return std::nullopt;
  const block_id block = free_.back();
  free_.pop_back();
  slots_[block].holders = 1;
  return block;
}

void block_allocator::claim(block_id block) {
  std::erase(free_, block);
  slots_.at(block).holders = 1;
}

void block_allocator::add_holder(block_id block) {
  ++slots_.at(block).holders;
}

bool block_allocator::drop_holder(block_id block) {
  return --slots_.at(block).holders == 0;
}

void block_allocator::recycle(block_id block) {
  if (in_flight(block))
    resting_.push_back(block);
  else
    free_.push_back(block);
}

void block_allocator::named(block_id block, std::uint64_t step) {
  slots_.at(block).last_step = std::max(slots_[block].last_step, step);
}

void block_allocator::returned(std::uint64_t step) {
  returned_ = std::max(returned_, step);
  std::erase_if(resting_, [this](block_id block) {
    if (in_flight(block))
      return false;
    free_.push_back(block);
    return true;
  });
}

bool block_allocator::in_flight(block_id block) const {
  return slots_.at(block).last_step > returned_;
}

} // namespace hexgen::scheduler
