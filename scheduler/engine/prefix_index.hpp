// From a prompt's first tokens to the KV blocks that already hold them.
#pragma once

#include "scheduler/engine/types.hpp"

#include <array>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>

namespace hexgen::scheduler {

/// A secret, so that nobody can make up colliding prompts.
struct hash_key {
  std::uint64_t low = 0, high = 0;
};

/// SipHash-2-4 of the parent's hash and one block of tokens.
[[nodiscard]] std::uint64_t chain_hash(const hash_key& key, std::uint64_t parent,
                                       std::span<const token> tokens);

/// A full block and what it holds.
struct indexed_block {
  std::uint64_t parent = 0; // hash of the chain before it
  std::array<token, kv_block_tokens> tokens{};
  block_id block = 0;
};

/// What a replica's KV pool held when it ended, for the one that takes the pool over.
struct kept_blocks {
  hash_key key; // of the hashes
  std::vector<indexed_block> blocks;
};

/// What `blocks` hold after one another, as indexed, by the key of `out`.
void add_kept(kept_blocks& out, std::span<const token> tokens, std::span<const block_id> blocks);

/// Full blocks by the hash of everything up to their end. Tokens are compared too, so a collision
/// is a miss. Blocks that nobody holds are kept, least recently used first out. Not thread-safe.
class prefix_index {
public:
  static constexpr std::uint64_t root = 0; // the parent of a sequence's first block

  explicit prefix_index(hash_key key);

  /// The block holding `tokens` (kv_block_tokens of them) after `parent`.
  struct entry {
    block_id block = 0;
    std::uint64_t hash = 0;
  };
  [[nodiscard]] std::optional<entry> find(std::uint64_t parent,
                                          std::span<const token> tokens) const;
  /// Returns the chain's hash. When another block already holds the same, that one stays.
  std::uint64_t insert(std::uint64_t parent, std::span<const token> tokens, block_id block);
  [[nodiscard]] bool contains(block_id block) const;
  [[nodiscard]] std::vector<indexed_block> all() const;

  /// Nobody holds an indexed block any more: it may be evicted.
  void park(block_id block);
  /// Somebody holds it again.
  void unpark(block_id block);
  [[nodiscard]] std::uint32_t parked() const;
  /// Forgets the least recently parked block and returns it.
  std::optional<block_id> evict();

private:
  hash_key key_;
  std::unordered_map<std::uint64_t, indexed_block> nodes_; // by hash
  std::unordered_map<block_id, std::uint64_t> hash_of_;    // indexed blocks
  std::list<block_id> parked_;                             // front: next to be evicted
  std::unordered_map<block_id, std::list<block_id>::iterator> parked_at_;
};

} // namespace hexgen::scheduler
