#include "compute/text/added_tokens.hpp"

#include "compute/text/unicode.hpp"

#include <algorithm>

namespace hexgen::compute {

namespace {

// Bytes of the white space that `text` ends with, before a token that takes it.
std::size_t space_before(std::string_view text) {
  std::size_t taken = 0;
  while (taken < text.size()) {
    const auto rest = text.substr(0, text.size() - taken);
    auto start = rest.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(rest[start]) & 0xC0U) == 0x80U)
      --start;
    if (!is_white_space(decode_utf8(rest.substr(start)).code))
      break;
    taken += rest.size() - start;
  }
  return taken;
}

std::size_t space_after(std::string_view text) {
  std::size_t taken = 0;
  for (auto c = decode_utf8(text); c.bytes > 0 && is_white_space(c.code);
       c = decode_utf8(text.substr(taken)))
    taken += c.bytes;
  return taken;
}

} // namespace

added_tokens::added_tokens(const vocabulary& v) {
  for (const auto& a : v.added) {
    const std::string_view text = v.pieces[static_cast<std::size_t>(a.id)];
    if (!text.empty())
      entries_.push_back({text, a});
  }
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const entry& a, const entry& b) { return a.text < b.text; });
  for (const auto& e : entries_)
    lengths_[static_cast<unsigned char>(e.text.front())].push_back(e.text.size());
  for (auto& lengths : lengths_) {
    std::sort(lengths.rbegin(), lengths.rend());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

const added_tokens::entry* added_tokens::match(std::string_view text, bool parse_special) const {
  for (const auto length : lengths_[static_cast<unsigned char>(text.front())]) {
    if (length > text.size())
      continue;
    const auto wanted = text.substr(0, length);
    const auto at = std::lower_bound(entries_.begin(), entries_.end(), wanted,
                                     [](const entry& e, std::string_view t) { return e.text < t; });
    if (at != entries_.end() && at->text == wanted && (parse_special || !at->token.special))
      return &*at;
  }
  return nullptr;
}

std::vector<text_part> added_tokens::split(std::string_view text, bool parse_special) const {
  std::vector<text_part> parts;
  std::size_t begin = 0;
  std::size_t i = 0;
  while (i < text.size()) {
    const auto* found = match(text.substr(i), parse_special);
    if (!found) {
      ++i;
      continue;
    }
    auto end = i;
    if (found->token.strip_left)
      end -= space_before(text.substr(begin, end - begin));
    if (end > begin)
      parts.push_back({-1, text.substr(begin, end - begin)});
    parts.push_back({found->token.id, found->text, found->token.in_text});
    i += found->text.size();
    if (found->token.strip_right)
      i += space_after(text.substr(i));
    begin = i;
  }
  if (begin < text.size())
    parts.push_back({-1, text.substr(begin)});
  return parts;
}

} // namespace hexgen::compute
