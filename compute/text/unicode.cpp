#include "compute/text/unicode.hpp"

#include <algorithm>

namespace hexgen::compute {

namespace {

unsigned byte_at(std::string_view text, std::size_t i) {
  return static_cast<unsigned char>(text[i]);
}

// The second byte's range excludes overlong forms, surrogates and what lies past U+10FFFF.
bool second_byte_fits(unsigned lead, unsigned second) {
  switch (lead) {
  case 0xE0:
    return second >= 0xA0 && second <= 0xBF;
  case 0xED:
    return second >= 0x80 && second <= 0x9F;
  case 0xF0:
    return second >= 0x90 && second <= 0xBF;
  case 0xF4:
    return second >= 0x80 && second <= 0x8F;
  default:
    return second >= 0x80 && second <= 0xBF;
  }
}

// Length of the longest prefix of `text` that is a prefix of a well-formed code point.
std::size_t fitting_bytes(std::string_view text, std::size_t wanted) {
  std::size_t n = 1;
  while (n < wanted && n < text.size()) {
    const auto b = byte_at(text, n);
    if (n == 1 ? !second_byte_fits(byte_at(text, 0), b) : (b & 0xC0U) != 0x80U)
      break;
    ++n;
  }
  return n;
}

} // namespace

std::size_t utf8_length(unsigned char lead) {
  if (lead < 0x80)
    return 1;
  if (lead < 0xC2)
    return 0;
  if (lead < 0xE0)
    return 2;
  if (lead < 0xF0)
    return 3;
  return lead < 0xF5 ? 4 : 0;
}

utf8_char decode_utf8(std::string_view text) {
  if (text.empty())
    return {};
  const auto lead = byte_at(text, 0);
  const auto wanted = utf8_length(static_cast<unsigned char>(lead));
  if (wanted == 0 || wanted > text.size() || fitting_bytes(text, wanted) != wanted)
    return {};
  if (wanted == 1)
    return {lead, 1};
  char32_t code = lead & (0xFFU >> (wanted + 1));
  for (std::size_t i = 1; i < wanted; ++i)
    code = (code << 6U) | (byte_at(text, i) & 0x3FU);
  return {code, wanted};
}

bool is_utf8_prefix(std::string_view text) {
  if (text.empty())
    return true;
  const auto wanted = utf8_length(static_cast<unsigned char>(text.front()));
  return text.size() < wanted && fitting_bytes(text, wanted) == text.size();
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

void append_utf8(std::string& out, char32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0U | (code >> 6U));
    out += static_cast<char>(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0U | (code >> 12U));
    out += static_cast<char>(0x80U | ((code >> 6U) & 0x3FU));
    out += static_cast<char>(0x80U | (code & 0x3FU));
  } else {
    out += static_cast<char>(0xF0U | (code >> 18U));
    out += static_cast<char>(0x80U | ((code >> 12U) & 0x3FU));
    out += static_cast<char>(0x80U | ((code >> 6U) & 0x3FU));
    out += static_cast<char>(0x80U | (code & 0x3FU));
  }
}

std::string well_formed_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    std::size_t n = decode_utf8(text).bytes;
    if (n > 0) {
      out.append(text.substr(0, n));
    } else {
      const auto wanted = utf8_length(static_cast<unsigned char>(text.front()));
      n = wanted == 0 ? 1 : fitting_bytes(text, wanted);
      append_utf8(out, 0xFFFD);
    }
    text.remove_prefix(n);
  }
  return out;
}

} // namespace hexgen::compute
