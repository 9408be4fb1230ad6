// A replica's KV blocks: the allocator and the prefix index working together.
#pragma once

#include "scheduler/engine/block_allocator.hpp"
#include "scheduler/engine/prefix_index.hpp"

namespace hexgen::scheduler {

/// Not thread-safe.
class block_pool {
public:
  block_pool(std::uint32_t blocks, bool prefix_cache, hash_key key);
  /// Of a fresh pool: these blocks hold what they held under another replica. They are hollow: a
  /// stage that is new has nothing in them.
  void inherit(std::span<const indexed_block> kept);

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
  /// `step` writes its last position.
  std::uint64_t publish(std::uint64_t parent, std::span<const token> tokens, block_id block,
                        std::uint64_t step);
  /// What every stage is known to hold: written by steps that have returned.
  [[nodiscard]] std::vector<indexed_block> kept() const;
  [[nodiscard]] bool hollow(block_id block) const { return blocks_[block].hollow; }
  /// `step` writes it where it was hollow.
  void filled(block_id block, std::uint64_t step);
  [[nodiscard]] std::uint64_t written_by(block_id block) const { return blocks_[block].written_by; }

  std::optional<block_id> allocate();
  void add_holder(block_id block);
  void drop_holder(block_id block);

  void named(block_id block, std::uint64_t step);
  void returned(std::uint64_t step);

private:
  struct content {
    std::uint64_t written_by = 0; // step
    bool hollow = false;
  };
  block_allocator allocator_;
  prefix_index index_;
  std::vector<content> blocks_;
  std::vector<block_id> resting_; // indexed, unheld, named by a step in flight
  bool prefix_cache_;
};

} // namespace hexgen::scheduler
