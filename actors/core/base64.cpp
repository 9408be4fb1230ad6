#include "actors/core/base64.hpp"

#include <algorithm>
#include <cstdint>

namespace hexgen::actors {
namespace {

constexpr std::string_view digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

} // namespace

std::string to_base64(std::string_view bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    const auto n = std::min<std::size_t>(3, bytes.size() - i);
    for (std::size_t j = 0; j < 3; ++j)
      group = group << 8U | (j < n ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    for (std::size_t j = 0; j < 4; ++j)
      out += j <= n ? digits[group >> (18 - 6 * j) & 63U] : '=';
  }
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  const auto padding = text.size() - std::min(text.size(), text.find_last_not_of('=') + 1);
  text.remove_suffix(padding);
  // One digit alone is no byte; padding fills the last group of four.
  if (text.size() % 4 == 1 || (padding != 0 && (padding > 2 || (text.size() + padding) % 4 != 0)))
    return std::nullopt;
  std::string out;
  std::uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    const auto digit = digits.find(c);
    if (digit == std::string_view::npos)
      return std::nullopt;
    group = group << 6U | static_cast<std::uint32_t>(digit);
    if ((bits += 6) >= 8)
      out += static_cast<char>(group >> (bits -= 8) & 255U);
  }
  return out;
}

} // namespace hexgen::actors
