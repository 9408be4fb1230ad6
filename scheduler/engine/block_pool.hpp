// A replica's KV blocks: the allocator and the prefix index working together.
#pragma once

#include "scheduler/engine/block_allocator.hpp"
#include "scheduler/engine/prefix_index.hpp"

namespace hexgen::scheduler {

/// Not thread-safe.
class block_pool {
public:
  block_pool(std::uint32_t blocks, bool prefix_cache, hash_key key);

  [[nodiscard]] std::uint32_t blocks() const;
  /// Blocks that allocate() can give now: free ones and unheld indexed ones.
  [[nodiscard]] std::uint32_t available() const;
  [[nodiscard]] std::uint32_t holders(block_id block) const;

  struct prefix {
    std::vector<block_id> blocks;      // held for the caller
    std::vector<std::uint64_t> hashes; // of each block's chain
  };
  /// The longest indexed run of full blocks at the start of `tokens`, at most `limit` blocks.
  prefix match(std::span<const token> tokens, std::size_t limit);
  /// Makes a full block findable; returns its chain's hash (0 when the prefix cache is off).
  std::uint64_t publish(std::uint64_t parent, std::span<const token> tokens, block_id block);

  std::optional<block_id> allocate();
  void add_holder(block_id block);
  void drop_holder(block_id block);

  void named(block_id block, std::uint64_t step);
  void returned(std::uint64_t step);

private:
  block_allocator allocator_;
  prefix_index index_;
  std::vector<block_id> resting_; // indexed, unheld, named by a step in flight
  bool prefix_cache_;
};

} // namespace hexgen::scheduler
