#include "actors/openai/api_key.hpp"

#include "actors/core/base64.hpp"

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

} // namespace

bool has_key(std::string_view authorization, std::string_view key, bool allow_basic) {
  if (has_scheme(authorization, "bearer"))
    return equal(authorization, key);
  if (!allow_basic || !has_scheme(authorization, "basic"))
    return false;
  const auto pair = from_base64(authorization);
  const auto colon = pair ? pair->find(':') : std::string::npos;
  return colon != std::string::npos && equal(std::string_view(*pair).substr(colon + 1), key);
}

} // namespace hexgen::actors
