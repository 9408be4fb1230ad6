// Server-sent events out of a byte stream.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::tools {

/// Feed it bytes as they come; it gives the `data:` payloads of the events that are complete.
/// Comments and other fields are skipped; LF and CRLF both end lines.
class sse_reader {
public:
  /// `most_bytes`: of one event; a longer one makes `broken`.
  explicit sse_reader(std::size_t most_bytes = 16 * 1024 * 1024) : most_bytes_(most_bytes) {}
  [[nodiscard]] std::vector<std::string> feed(std::string_view bytes);
  [[nodiscard]] bool broken() const { return broken_; }

private:
  void take_line(std::vector<std::string>& events);
  std::size_t most_bytes_;
  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool broken_ = false;
};

} // namespace hexgen::tools
