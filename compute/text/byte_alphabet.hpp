// GPT-2's alphabet: each byte as one printable character, so that pieces are plain JSON strings.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace hexgen::compute {

/// The character (UTF-8) of each byte.
[[nodiscard]] const std::array<std::string, 256>& byte_characters();

/// The bytes that a piece in the alphabet stands for; nothing when it has other characters.
[[nodiscard]] std::optional<std::string> bytes_of_alphabet(std::string_view piece);

} // namespace hexgen::compute
