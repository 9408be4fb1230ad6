// What waits to be sent to one peer: three queues by class, one bound, the peer's windows.
#pragma once

#include "transport/fabric.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>

namespace hexgen::transport {

/// `push` and `overtake` from any thread; everything else from the transport thread.
class outbox {
public:
  /// `bound_bytes`: past it push refuses; control has a reserve of its own beyond it.
  explicit outbox(std::uint64_t bound_bytes) : bound_bytes_(bound_bytes) {}

  /// `wake` is set when the transport thread must be told (it sleeps on this outbox).
  send_result push(frame f, bool& wake);
  /// For a sender that could send a data frame itself: true when nothing waits before it and the
  /// window lets it go (result: accepted, `f` is then counted as popped), or when the box is
  /// closed (result: down). Any thread.
  bool overtake(const frame& f, send_result& result);
  /// The next frame of that class that the peer's window lets go; false: none.
  bool pop(traffic traffic_class, frame& out);
  /// The transport thread has drained what it can: the next push must wake it again. False:
  /// something came in meanwhile.
  bool sleep();
  /// A popped frame has left the process: its bytes no longer count.
  void sent(std::uint64_t cost);
  /// The peer's window grew (its consumer used up bytes).
  void grant(traffic traffic_class, std::uint64_t bytes);
  /// Sends answer `down` from now on; what waits is dropped.
  void close();
  /// Nothing waits or is being written.
  [[nodiscard]] bool idle() const;

private:
  struct lane {
    std::deque<frame> frames;
    std::int64_t window = 0; // may be negative: the last frame overhangs
  };

  mutable std::mutex mutex_;
  std::array<lane, 3> lanes_;
  std::uint64_t queued_bytes_ = 0;
  const std::uint64_t bound_bytes_;
  bool asleep_ = true;
  bool closed_ = false;
};

} // namespace hexgen::transport
