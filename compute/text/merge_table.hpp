// Ranks of token pairs, looked up by the ids of their halves.
#pragma once

#include "compute/text/pair_merger.hpp"
#include "compute/text/vocabulary.hpp"

#include <cstdint>
#include <string_view>
#include <unordered_map>

namespace hexgen::compute {

/// Immutable.
class merge_table {
public:
  merge_table() = default;
  /// Throws file_error naming a merge whose halves or whole are not in the vocabulary.
  merge_table(const vocabulary& v, const merge_list& merges,
              const std::unordered_map<std::string_view, token_id>& ids);

  [[nodiscard]] pair_merge find(token_id left, token_id right) const {
    const auto at = pairs_.find(key(left, right));
    return at == pairs_.end() ? pair_merge{} : at->second;
  }
  [[nodiscard]] bool empty() const { return pairs_.empty(); }

private:
  struct mixer {
    std::size_t operator()(std::uint64_t k) const {
      return static_cast<std::size_t>((k * 0x9E3779B97F4A7C15ULL) >> 16U);
    }
  };
  static std::uint64_t key(token_id left, token_id right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32U) |
           static_cast<std::uint32_t>(right);
  }
  std::unordered_map<std::uint64_t, pair_merge, mixer> pairs_;
};

} // namespace hexgen::compute
