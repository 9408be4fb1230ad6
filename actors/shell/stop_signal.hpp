// SIGTERM and SIGINT as something that the main thread waits for.
#pragma once

#include <chrono>

namespace hexgen::actors {

/// Make it first in main: it blocks the signals for this thread and all that are started later, and
/// ignores SIGPIPE.
class stop_signal {
public:
  stop_signal();
  /// True when a signal has come, or comes within `limit`. Main thread only.
  bool wait_for(std::chrono::milliseconds limit);
  [[nodiscard]] bool seen() const { return seen_; }
  /// Takes the signal back to its usual effect: a second one ends the process.
  void release();

private:
  bool seen_ = false;
};

} // namespace hexgen::actors
