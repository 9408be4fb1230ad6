// SentencePiece's BPE, as Llama 2, Mistral and TinyLlama use it: spaces are '▁', characters that
// are no token fall back to byte tokens.
#pragma once

#include "compute/text/vocabulary.hpp"

#include <cstdint>
#include <memory>

namespace hexgen::compute {

/// Where encoding puts a space in front that the text does not have.
enum class space_prefix : std::uint8_t {
  never,
  start,          // in front of the text, unless it begins with a space
  parts,          // in front of every part between special tokens, always
  parts_if_absent // the same, unless the part begins with a space
};

struct sentencepiece_options {
  space_prefix prefix = space_prefix::parts;
  bool split_words = false; // merges do not cross the space in front of a word
};

/// `v` complete. With `merges` pairs merge in their order, without by the scores of the pieces.
/// Throws file_error.
[[nodiscard]] std::shared_ptr<const tokenizer>
make_sentencepiece_tokenizer(vocabulary v, const merge_list& merges, sentencepiece_options options);

} // namespace hexgen::compute
