#include "compute/text/stop_matcher.hpp"

#include <algorithm>
#include <utility>

namespace hexgen::compute {

stop_matcher::stop_matcher(std::vector<std::string> stops) {
  for (auto& stop : stops) {
    if (stop.empty())
      continue;
    pattern p{std::move(stop), {}, 0};
    p.failure.resize(p.text.size(), 0);
    for (std::size_t i = 1, k = 0; i < p.text.size(); ++i) {
      while (k > 0 && p.text[i] != p.text[k])
        k = p.failure[k - 1];
      if (p.text[i] == p.text[k])
        ++k;
      p.failure[i] = k;
    }
    patterns_.push_back(std::move(p));
  }
}

std::string stop_matcher::push(std::string_view text) {
  if (stopped_)
    return {};
  std::size_t longest = 0;
  for (const char c : text) {
    held_ += c;
    longest = 0;
    const pattern* found = nullptr;
    for (auto& p : patterns_) {
      while (p.matched > 0 && p.text[p.matched] != c)
        p.matched = p.failure[p.matched - 1];
      if (p.text[p.matched] == c)
        ++p.matched;
      longest = std::max(longest, p.matched);
      // A full match ends the stream, so `matched` never stays at the text's size.
      if (p.matched == p.text.size() && (!found || p.text.size() > found->text.size()))
        found = &p;
    }
    if (found) {
      stopped_ = true;
      met_ = found->text;
      held_.resize(held_.size() - met_.size());
      return std::exchange(held_, {});
    }
  }
  if (text.empty())
    return {};
  auto out = held_.substr(0, held_.size() - longest);
  held_.erase(0, out.size());
  // A half stop string may begin inside a character only if the character is part of it, so a
  // cut at its first byte is a cut between characters as long as stop strings are whole UTF-8.
  return out;
}

std::string stop_matcher::finish() {
  return std::exchange(held_, {});
}

} // namespace hexgen::compute
