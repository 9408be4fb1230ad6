#include "compute/text/utf8_stream.hpp"

#include "compute/text/unicode.hpp"

#include <algorithm>

namespace hexgen::compute {

std::string utf8_stream::push(std::string_view bytes) {
  held_.append(bytes);
  std::size_t keep = 0;
  for (std::size_t n = std::min<std::size_t>(3, held_.size()); n > 0; --n)
    if (is_utf8_prefix(std::string_view(held_).substr(held_.size() - n))) {
      keep = n;
      break;
    }
  const auto whole = std::string_view(held_).substr(0, held_.size() - keep);
  auto out = well_formed_utf8(whole);
  held_.erase(0, whole.size());
  return out;
}

std::string utf8_stream::finish() {
  auto out = well_formed_utf8(held_);
  held_.clear();
  return out;
}

} // namespace hexgen::compute
