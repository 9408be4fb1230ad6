// All text tokens of a vocabulary by their bytes, for walking an automaton over all of them.
#pragma once

#include "compute/tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace hexgen::compute {

/// Nodes in depth-first order: a node's children follow it, and `skip` leads past them. Special
/// tokens and tokens without bytes are not in it. Immutable.
class token_trie {
public:
  struct node {
    std::uint8_t byte = 0;
    std::uint16_t depth = 0;  // 1 for the first byte of a token
    std::uint32_t skip = 0;   // the node after this one's subtree
    std::uint32_t tokens = 0; // tokens that end here: [tokens, tokens of the next node)
  };

  explicit token_trie(const tokenizer& tokens);
  /// The trie of a tokenizer, built once while that tokenizer lives. Thread-safe.
  [[nodiscard]] static std::shared_ptr<const token_trie>
  of(const std::shared_ptr<const tokenizer>& tokens);

  /// With one node past the end, which closes the last token range.
  [[nodiscard]] std::span<const node> nodes() const { return nodes_; }
  [[nodiscard]] std::size_t size() const { return nodes_.size() - 1; }
  [[nodiscard]] token_id token(std::uint32_t place) const { return tokens_[place]; }
  [[nodiscard]] std::size_t max_depth() const { return max_depth_; }

private:
  std::vector<node> nodes_;
  std::vector<token_id> tokens_;
  std::size_t max_depth_ = 0;
};

} // namespace hexgen::compute
