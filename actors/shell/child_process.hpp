// A supervised child: restarted with back-off when it dies, ended with its parent.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace hexgen::actors {

/// All calls from one thread, which lives as long as the child may: the kernel ends the child
/// (SIGTERM) when that thread ends.
class child_process {
public:
  /// `arguments[0]` is the program's path. `environment`: NAME=value, added to ours.
  child_process(std::vector<std::string> arguments, std::vector<std::string> environment,
                std::function<void(const std::string&)> log);
  ~child_process(); // as stop()
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  /// Starts the child, or starts it again when it is dead and its back-off (0.2 s, doubling up to
  /// 10 s, reset by 30 s of life) has passed. Exit code 2 (usage) is final.
  void poll();
  /// SIGTERM, and SIGKILL after `limit_ms`.
  void stop(std::uint32_t limit_ms = 3000);
  [[nodiscard]] pid_t pid() const { return pid_; } // 0: not running

private:
  void start();
  bool reap(int options);

  std::vector<std::string> arguments_, environment_;
  std::function<void(const std::string&)> log_;
  pid_t pid_ = 0;
  bool given_up_ = false;
  int failures_ = 0;
  std::uint64_t started_ms_ = 0, next_ms_ = 0;
};

} // namespace hexgen::actors
