// Byte-level byte pair encoding, as GPT-2, SmolLM2, Llama 3 and Qwen use it.
#pragma once

#include "compute/text/pretokenizer.hpp"
#include "compute/text/vocabulary.hpp"

#include <memory>
#include <vector>

namespace hexgen::compute {

struct bpe_options {
  std::vector<split_rule> rules;
  bool whole_words = false;  // a word that is a token is taken as it is, whatever its merges
  bool compose = false;      // text goes to Unicode's composed form (NFC) first
  bool prefix_space = false; // each part of the text gets a space in front if it has none
};

/// `v` complete, with pieces in GPT-2's byte alphabet. Throws file_error naming the merge or the
/// pattern that does not fit.
[[nodiscard]] std::shared_ptr<const tokenizer>
make_bpe_tokenizer(vocabulary v, const merge_list& merges, bpe_options options);

} // namespace hexgen::compute
