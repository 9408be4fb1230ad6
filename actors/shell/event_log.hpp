// Structured log lines: one event a line, key=value.
#pragma once

#include <string>

namespace hexgen::actors {

/// Writes "time=... process=NAME LINE" to stderr in one piece. Thread-safe. Control characters in
/// `line` (it may quote a peer) become '?'.
class event_log {
public:
  explicit event_log(std::string process) : process_(std::move(process)) {}
  void write(const std::string& line) const;
  void operator()(const std::string& line) const { write(line); }

private:
  std::string process_;
};

} // namespace hexgen::actors
