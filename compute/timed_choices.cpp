#include "compute/timed_choices.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace hexgen::compute {
namespace {

int value_of(char digit) {
  return digit >= '0' && digit <= '9'   ? digit - '0'
         : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                                        : -1;
}

std::optional<std::vector<std::byte>> from_hex(const std::string& text) {
  if (text.empty() || text.size() % 2 != 0)
    return std::nullopt;
  std::vector<std::byte> out;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = value_of(text[i]);
    const int low = value_of(text[i + 1]);
    if (high < 0 || low < 0)
      return std::nullopt;
    out.push_back(static_cast<std::byte>(high * 16 + low));
  }
  return out;
}

} // namespace

timed_choices::timed_choices(std::filesystem::path file) : file_(std::move(file)) {
  std::ifstream in(file_);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string key, hex, more;
    if (!(words >> key >> hex) || words >> more)
      continue;
    if (auto bytes = from_hex(hex))
      kept_.insert_or_assign(key, std::move(*bytes));
  }
}

std::filesystem::path timed_choices::folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
    return std::filesystem::path(cache) / "hexgen" / "timed";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return std::filesystem::path(home) / ".cache" / "hexgen" / "timed";
  return {};
}

std::optional<std::vector<std::byte>> timed_choices::find(const std::string& key,
                                                          std::size_t size) const {
  const auto found = kept_.find(key);
  if (found == kept_.end() || found->second.size() != size)
    return std::nullopt;
  return found->second;
}

void timed_choices::keep(const std::string& key, std::span<const std::byte> bytes) {
  kept_.insert_or_assign(key, std::vector(bytes.begin(), bytes.end()));
  if (file_.empty())
    return;
  std::string line = key + " ";
  constexpr char digits[] = "0123456789abcdef";
  for (const auto b : bytes) {
    line += digits[std::to_integer<unsigned>(b) / 16];
    line += digits[std::to_integer<unsigned>(b) % 16];
  }
  line += '\n';
  std::error_code none;
  std::filesystem::create_directories(file_.parent_path(), none);
  std::ofstream(file_, std::ios::app)
      << line << std::flush; // one write: lines of others stay whole
}

} // namespace hexgen::compute
