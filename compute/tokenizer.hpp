// Text <-> token ids, from GGUF metadata or tokenizer.json / tokenizer.model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

using token_id = std::int32_t;

/// Immutable after opening and thread-safe.
class tokenizer {
 public:
  virtual ~tokenizer() = default;
  /// `parse_special`: texts of special tokens in `text` become those tokens.
  /// `add_bos`: put the BOS token first when the model's files say that prompts have one.
  [[nodiscard]] virtual std::vector<token_id> encode(std::string_view text, bool parse_special,
                                                     bool add_bos) const = 0;
  /// The bytes of one token; empty for special tokens when `skip_special`.
  [[nodiscard]] virtual std::string piece(token_id id, bool skip_special) const = 0;
  [[nodiscard]] virtual int vocab() const = 0;
  [[nodiscard]] virtual bool is_special(token_id id) const = 0;
  [[nodiscard]] virtual token_id bos() const = 0; // -1 when there is none
  [[nodiscard]] virtual token_id eos() const = 0;
  /// All ids that end a generation (eos and end-of-turn tokens).
  [[nodiscard]] virtual std::span<const token_id> end_ids() const = 0;
  /// The file's Jinja chat template, or empty.
  [[nodiscard]] virtual const std::string& chat_template() const = 0;

  /// Encoding puts a space in front of a text, so a whole text's first token gives one up again.
  [[nodiscard]] virtual bool drops_first_space() const { return false; }

  /// Concatenated pieces. SentencePiece models drop the leading space of a text's first token.
  [[nodiscard]] std::string decode(std::span<const token_id> ids, bool skip_special) const;
};

/// From the same path as open_model. Throws file_error.
[[nodiscard]] std::shared_ptr<const tokenizer> open_tokenizer(const std::filesystem::path& path);

} // namespace hexgen::compute
