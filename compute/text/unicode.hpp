// UTF-8 in and out, one code point at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hexgen::compute {

/// One decoded code point. `bytes` is 0 when the text does not begin with a well-formed one.
struct utf8_char {
  char32_t code = 0;
  std::size_t bytes = 0;
};

/// The code point at the front of `text`: no overlong forms, no surrogates, at most U+10FFFF.
[[nodiscard]] utf8_char decode_utf8(std::string_view text);

/// What `lead` announces: 1 to 4 bytes, or 0 when no code point begins so.
[[nodiscard]] std::size_t utf8_length(unsigned char lead);

/// True when `text` (up to 3 bytes) could still grow into a well-formed code point.
[[nodiscard]] bool is_utf8_prefix(std::string_view text);

/// Unicode's White_Space property.
[[nodiscard]] bool is_white_space(char32_t code);

void append_utf8(std::string& out, char32_t code);

/// `text` with every ill-formed run replaced by U+FFFD, as the Unicode standard advises (one for
/// each maximal prefix of a well-formed sequence, one for each other byte).
[[nodiscard]] std::string well_formed_utf8(std::string_view text);

} // namespace hexgen::compute
