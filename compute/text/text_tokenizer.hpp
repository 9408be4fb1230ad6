// What the tokenizers share: pieces, special tokens, and the cutting at tokens in the text.
#pragma once

#include "compute/text/added_tokens.hpp"
#include "compute/text/vocabulary.hpp"
#include "compute/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

/// What a part of the text comes after.
enum class part_place : std::uint8_t { start, token, text };

class text_tokenizer : public tokenizer {
public:
  [[nodiscard]] std::vector<token_id> encode(std::string_view text, bool parse_special,
                                             bool add_bos) const final;
  [[nodiscard]] std::string piece(token_id id, bool skip_special) const final;
  [[nodiscard]] int vocab() const final { return static_cast<int>(vocabulary_->pieces.size()); }
  [[nodiscard]] bool is_special(token_id id) const final;
  [[nodiscard]] token_id bos() const final { return vocabulary_->bos; }
  [[nodiscard]] token_id eos() const final { return vocabulary_->eos; }
  [[nodiscard]] std::span<const token_id> end_ids() const final { return vocabulary_->end_ids; }
  [[nodiscard]] const std::string& chat_template() const final {
    return vocabulary_->chat_template;
  }

protected:
  /// `v` is complete (complete_vocabulary).
  explicit text_tokenizer(vocabulary v);
  /// Text between added tokens, well-formed. It is empty only before a token that is in_text.
  virtual void encode_part(std::string_view text, part_place place,
                           std::vector<token_id>& out) const = 0;
  [[nodiscard]] const vocabulary& words() const { return *vocabulary_; }
  /// The bytes of each token; the derived class fills it.
  std::vector<std::string> outputs_;

private:
  std::unique_ptr<const vocabulary> vocabulary_; // a fixed address: views point into it
  added_tokens added_;
  std::vector<bool> special_;
};

} // namespace hexgen::compute
