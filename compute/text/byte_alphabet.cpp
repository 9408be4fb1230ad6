#include "compute/text/byte_alphabet.hpp"

#include "compute/text/unicode.hpp"

namespace hexgen::compute {

namespace {

struct alphabet {
  std::array<std::string, 256> characters;
  std::array<int, 512> bytes; // code point to byte, -1 for others

  alphabet() {
    bytes.fill(-1);
    // Printable Latin-1 characters stand for themselves, the others follow from U+0100.
    char32_t next = 256;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable =
          (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
      const char32_t code = printable ? b : next++;
      append_utf8(characters[b], code);
      bytes[code] = static_cast<int>(b);
    }
  }
};

const alphabet& gpt2_alphabet() {
  static const alphabet a;
  return a;
}

} // namespace

const std::array<std::string, 256>& byte_characters() {
  return gpt2_alphabet().characters;
}

std::optional<std::string> bytes_of_alphabet(std::string_view piece) {
  const auto& bytes = gpt2_alphabet().bytes;
  std::string out;
  while (!piece.empty()) {
    const auto c = decode_utf8(piece);
    if (c.bytes == 0 || c.code >= bytes.size() || bytes[c.code] < 0)
      return std::nullopt;
    out += static_cast<char>(bytes[c.code]);
    piece.remove_prefix(c.bytes);
  }
  return out;
}

} // namespace hexgen::compute
