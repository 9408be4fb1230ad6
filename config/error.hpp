// The one error of configuration files: which file, which line, which key, what is wrong.
#pragma once

#include <stdexcept>
#include <string>

namespace hexgen::config {

/// `file:line: key: message`; line 0 when the whole file is meant.
class config_error : public std::runtime_error {
public:
  config_error(const std::string& file, int line, const std::string& key,
               const std::string& message);
};

} // namespace hexgen::config
