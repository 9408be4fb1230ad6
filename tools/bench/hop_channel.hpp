// Processes that a benchmark starts of itself, and how they find each other.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace hexgen::bench {

/// A byte channel from before the link (a child's stdin and stdout). Throws std::runtime_error.
struct hop_channel {
  int in = 0;
  int out = 1;
  void put(const std::string& text) const; // length-prefixed, at most 64 KiB
  [[nodiscard]] std::string get() const;
};

/// This program again, with other arguments; killed at the end.
class child_end {
public:
  explicit child_end(std::vector<std::string> arguments);
  child_end(child_end&& other) noexcept;
  child_end(const child_end&) = delete;
  child_end& operator=(const child_end&) = delete;
  ~child_end();
  [[nodiscard]] hop_channel channel() const { return {fd_, fd_}; }

private:
  pid_t pid_ = -1;
  int fd_ = -1;
};

} // namespace hexgen::bench
