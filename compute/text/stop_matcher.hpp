// Stop strings over a stream of text pieces, without ever showing a part of one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

/// Finds the first of several stop strings in a text that arrives in pieces. Text that could be
/// the beginning of a stop string is held back until that is decided. Linear in the text
/// (Knuth-Morris-Pratt for each stop string). Not thread-safe.
class stop_matcher {
public:
  /// Empty strings among `stops` are ignored.
  explicit stop_matcher(std::vector<std::string> stops);

  /// The text that may be shown after `text`. When a stop string is complete, the text before it
  /// is returned (of several that end at the same byte, the one that begins first wins), stopped()
  /// becomes true, and everything later is dropped.
  [[nodiscard]] std::string push(std::string_view text);
  /// The end of the text without a stop: what was held back.
  [[nodiscard]] std::string finish();
  [[nodiscard]] bool stopped() const { return stopped_; }
  /// The stop string that was met; empty before.
  [[nodiscard]] const std::string& met() const { return met_; }

private:
  struct pattern {
    std::string text;
    std::vector<std::size_t> failure; // longest border of each prefix
    std::size_t matched = 0;          // bytes of `text` that the stream's end matches
  };
  std::vector<pattern> patterns_;
  std::string held_;
  std::string met_;
  bool stopped_ = false;
};

} // namespace hexgen::compute
