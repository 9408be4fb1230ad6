// Which replica takes a request: weighted by capacity, masked by KV headroom, prefix-affine.
#pragma once

#include "scheduler/engine/prefix_index.hpp"

#include <list>
#include <optional>
#include <span>
#include <unordered_map>

namespace hexgen::scheduler {

struct routing_options {
  /// An affine replica is taken while its load is at most `load_cap` times the least one plus
  /// `load_slack_s`.
  double load_cap = 1.25;
  double load_slack_s = 0.25;
  std::size_t remembered_prefixes = 65536;
  int prefix_blocks = 64; // of a prompt are remembered at most
  hash_key key;
};

/// A replica as the router sees it.
struct routing_candidate {
  std::uint64_t replica = 0;
  double capacity = 1;                  // predicted tokens/s
  std::uint64_t outstanding_tokens = 0; // sent there and not yet come back: prompt and output
  std::uint64_t held_tokens = 0;        // KV positions that its requests here may fill
  std::uint64_t kv_tokens = 0;          // that it can hold; 0: unknown
};

/// Not thread-safe; the same calls give the same answers.
class routing_policy {
public:
  explicit routing_policy(routing_options options);
  /// Index of the replica that takes `prompt` with at most `output` tokens to come; nothing when
  /// `candidates` is empty. Remembers where the prompt went.
  std::optional<std::size_t> pick(std::span<const routing_candidate> candidates,
                                  std::span<const token> prompt, std::uint64_t output);
  /// What is known of a replica's prefixes is forgotten.
  void forget(std::uint64_t replica);

private:
  struct memory {
    std::uint64_t replica = 0;
    std::list<std::uint64_t>::iterator used;
  };
  void remember(std::span<const token> prompt, std::uint64_t replica);

  routing_options options_;
  std::unordered_map<std::uint64_t, memory> homes_; // by chain hash
  std::list<std::uint64_t> used_;                   // front: forgotten next
};

} // namespace hexgen::scheduler
