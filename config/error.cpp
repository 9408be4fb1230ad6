#include "config/error.hpp"

namespace hexgen::config {

namespace {

std::string place(const std::string& file, int line, const std::string& key) {
  std::string text = file;
  if (line > 0)
    text.append(":").append(std::to_string(line));
  text += ": ";
  if (!key.empty())
    text.append(key).append(": ");
  return text;
}

} // namespace

config_error::config_error(const std::string& file, int line, const std::string& key,
                           const std::string& message)
    : std::runtime_error(place(file, line, key) + message) {}

} // namespace hexgen::config
