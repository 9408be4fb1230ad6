// Bytes of tokens to whole characters: a half character waits for the rest of it.
#pragma once

#include <string>
#include <string_view>

namespace hexgen::compute {

/// Turns a stream of byte pieces into well-formed UTF-8. At most 3 bytes are held back. What can
/// no longer become a character is replaced by U+FFFD. Not thread-safe.
class utf8_stream {
public:
  /// The whole characters that are complete after `bytes`.
  [[nodiscard]] std::string push(std::string_view bytes);
  /// The end of the text: a half character becomes U+FFFD.
  [[nodiscard]] std::string finish();

private:
  std::string held_;
};

} // namespace hexgen::compute
