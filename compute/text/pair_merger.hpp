// The merge loop of byte pair encoding: the best pair first, the leftmost of equals.
#pragma once

#include <cstdint>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

namespace hexgen::compute {

/// A run of the text that is one symbol so far. `id` is -1 where no token has this text.
struct merge_symbol {
  std::uint32_t begin = 0;
  std::uint32_t size = 0; // bytes; 0 once it is part of its left neighbour
  std::int32_t id = -1;
};

/// What a pair of symbols becomes: the smallest `rank` is merged first.
struct pair_merge {
  float rank = 0;
  std::int32_t id = -1; // -1: the pair does not merge
};

/// Merges neighbours in place until no pair merges; O(n log n). `look_up(left, right)` gives the
/// pair's pair_merge. Reusable, not thread-safe.
class pair_merger {
public:
  /// On return `symbols` holds the merged symbols in order.
  template <class LookUp>
  void run(std::vector<merge_symbol>& symbols, const LookUp& look_up) {
    const auto n = static_cast<int>(symbols.size());
    previous_.resize(symbols.size());
    next_.resize(symbols.size());
    for (int i = 0; i < n; ++i) {
      previous_[static_cast<std::size_t>(i)] = i - 1;
      next_[static_cast<std::size_t>(i)] = i + 1 < n ? i + 1 : -1;
    }
    for (int i = 0; i + 1 < n; ++i)
      offer(symbols, i, i + 1, look_up);
    while (!queue_.empty()) {
      const auto best = queue_.top();
      queue_.pop();
      auto& left = symbols[static_cast<std::size_t>(best.left)];
      auto& right = symbols[static_cast<std::size_t>(best.right)];
      // Stale: one of the two has been merged since.
      if (left.size == 0 || right.size == 0 || left.size + right.size != best.size ||
          next_[static_cast<std::size_t>(best.left)] != best.right)
        continue;
      left.size += right.size;
      left.id = best.id;
      right.size = 0;
      const auto after = next_[static_cast<std::size_t>(best.right)];
      next_[static_cast<std::size_t>(best.left)] = after;
      if (after >= 0) {
        previous_[static_cast<std::size_t>(after)] = best.left;
        offer(symbols, best.left, after, look_up);
      }
      if (const auto before = previous_[static_cast<std::size_t>(best.left)]; before >= 0)
        offer(symbols, before, best.left, look_up);
    }
    std::erase_if(symbols, [](const merge_symbol& s) { return s.size == 0; });
  }

private:
  struct candidate {
    float rank;
    int left, right;
    std::uint32_t size;
    std::int32_t id;
    bool operator<(const candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  template <class LookUp>
  void offer(const std::vector<merge_symbol>& symbols, int left, int right, const LookUp& look_up) {
    const auto& a = symbols[static_cast<std::size_t>(left)];
    const auto& b = symbols[static_cast<std::size_t>(right)];
    const pair_merge m = look_up(a, b);
    if (m.id >= 0)
      queue_.push({m.rank, left, right, a.size + b.size, m.id});
  }

  std::vector<int> previous_, next_;
  std::priority_queue<candidate> queue_;
};

} // namespace hexgen::compute
