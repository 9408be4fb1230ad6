#include "actors/openai/api_key.hpp"

#include <algorithm>
#include <cstddef>

namespace hexgen::actors {

namespace {

bool equal(std::string_view given, std::string_view key) {
  unsigned different = given.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i)
    different |= static_cast<unsigned char>(given[i]) ^
                 static_cast<unsigned char>(key[i % std::max<std::size_t>(1, key.size())]);
  return different == 0;
}

bool has_scheme(std::string_view& text, std::string_view scheme) {
  if (text.size() <= scheme.size() || text[scheme.size()] != ' ')
    return false;
  for (std::size_t i = 0; i < scheme.size(); ++i)
    if ((text[i] | 32) != scheme[i])
      return false;
  text.remove_prefix(scheme.size() + 1);
  while (!text.empty() && text.front() == ' ')
    text.remove_prefix(1);
  return true;
}

// Stops at the first character that is not of the alphabet: padding, or nonsense.
std::string decode_base64(std::string_view text) {
  constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned held = 0;
  int bits = 0;
  for (const char c : text) {
    const auto value = alphabet.find(c);
    if (value == std::string_view::npos)
      break;
    held = (held << 6 | static_cast<unsigned>(value)) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes += static_cast<char>(held >> bits & 0xff);
    }
  }
  return bytes;
}

} // namespace

bool has_key(std::string_view authorization, std::string_view key, bool allow_basic) {
  if (has_scheme(authorization, "bearer"))
    return equal(authorization, key);
  if (!allow_basic || !has_scheme(authorization, "basic"))
    return false;
  const auto pair = decode_base64(authorization);
  const auto colon = pair.find(':');
  return colon != std::string::npos && equal(std::string_view(pair).substr(colon + 1), key);
}

} // namespace hexgen::actors
