// Cuts a text at the tokens that stand for themselves (special and user-defined ones).
#pragma once

#include "compute/text/vocabulary.hpp"

#include <array>
#include <string_view>
#include <vector>

namespace hexgen::compute {

/// A part of a text: a token, or text between tokens (id < 0).
struct text_part {
  token_id id = -1;
  std::string_view text;
  bool in_text = false; // of a token
};

/// Immutable. At each place of the text the longest added token wins, the leftmost place first.
class added_tokens {
public:
  /// Keeps views of `v.pieces`.
  explicit added_tokens(const vocabulary& v);
  /// The parts of `text` in order; special tokens are found only with `parse_special`.
  [[nodiscard]] std::vector<text_part> split(std::string_view text, bool parse_special) const;

private:
  struct entry {
    std::string_view text;
    added_token token;
  };
  [[nodiscard]] const entry* match(std::string_view text, bool parse_special) const;
  // Sorted by text. lengths_[b]: the lengths of entries that begin with byte b, longest first.
  std::vector<entry> entries_;
  std::array<std::vector<std::size_t>, 256> lengths_;
};

} // namespace hexgen::compute
