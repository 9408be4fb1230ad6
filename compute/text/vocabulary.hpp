// What a tokenizer's file says, whatever the file: pieces, kinds, special ids.
#pragma once

#include "compute/tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hexgen::compute {

/// GGUF's tokenizer.ggml.token_type, which are SentencePiece's piece types.
enum class token_kind : std::uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

inline constexpr std::size_t max_vocabulary = 1'000'000;
inline constexpr std::size_t max_piece_bytes = 16'384;
inline constexpr std::size_t max_merges = 2'000'000;

/// A token that is looked for in the text before it is split into words.
struct added_token {
  token_id id = -1;
  bool special = false;     // looked for only when special tokens are parsed
  bool strip_left = false;  // takes the white space before it
  bool strip_right = false; // takes the white space after it
  bool in_text = false;     // no break in the text: no space is put in front of what follows
};

/// Filled by a reader, then given to a tokenizer. `pieces` are as in the file (byte-level pieces
/// in GPT-2's byte alphabet).
struct vocabulary {
  std::string file; // for errors
  std::vector<std::string> pieces;
  std::vector<token_kind> kinds;  // one a piece
  std::vector<float> scores;      // one a piece, or empty
  std::vector<added_token> added; // their texts are their pieces
  token_id bos = -1;
  token_id eos = -1;
  token_id unknown = -1;
  bool add_bos = false;
  std::vector<token_id> end_ids;
  std::string chat_template;
};

/// A merge of byte pair encoding: the texts of its halves, in order of rank.
using merge_list = std::vector<std::pair<std::string, std::string>>;

/// Throws file_error naming the file and `field`.
[[noreturn]] void bad_tokenizer(const std::string& file, const std::string& field,
                                const std::string& what);

/// Checks sizes and ids, adds to end_ids the end-of-turn tokens that are known by their texts, and
/// makes `added` hold each control and user-defined piece. Throws file_error.
void complete_vocabulary(vocabulary& v);

/// Piece text to id. The first of equal pieces wins. Views into `v.pieces`.
[[nodiscard]] std::unordered_map<std::string_view, token_id> piece_ids(const vocabulary& v);

} // namespace hexgen::compute
