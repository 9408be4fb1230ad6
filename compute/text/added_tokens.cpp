#include "compute/text/added_tokens.hpp"

#include <algorithm>

namespace hexgen::compute {

namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
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
    while (found->token.strip_left && end > begin && is_space(text[end - 1]))
      --end;
    if (end > begin)
      parts.push_back({-1, text.substr(begin, end - begin)});
    parts.push_back({found->token.id, found->text});
    i += found->text.size();
    while (found->token.strip_right && i < text.size() && is_space(text[i]))
      ++i;
    begin = i;
  }
  if (begin < text.size())
    parts.push_back({-1, text.substr(begin)});
  return parts;
}

} // namespace hexgen::compute
