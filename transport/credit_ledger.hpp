// The consumer's side of the credits: what arrived, what has been used up, what to grant again.
#pragma once

#include "transport/record.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

namespace hexgen::transport {

/// One per peer. A frame of a windowed class is charged on arrival and given back when its last
/// holder lets go, on whatever thread that is.
class credit_ledger : public std::enable_shared_from_this<credit_ledger> {
public:
  /// `wake` is called, from any thread, when enough has been given back to be worth a message.
  credit_ledger(std::uint64_t window_bytes, std::function<void()> wake);

  /// Accounts for a frame of that class and window cost; false: the sender ignored its window.
  /// One thread at a time for a class.
  [[nodiscard]] bool charge(traffic traffic_class, std::uint64_t cost);
  /// Turns what was charged and read into a frame whose end gives its window back.
  [[nodiscard]] std::shared_ptr<const frame> wrap(received_frame received);
  /// What the sender may be granted again since the last call. Transport thread.
  [[nodiscard]] std::uint64_t take(traffic traffic_class);
  /// `wake` is not called any more once this has returned.
  void detach();

private:
  struct receipt;
  void give_back(traffic traffic_class, std::uint64_t bytes);

  const std::uint64_t window_bytes_;
  std::mutex wake_mutex_;
  std::function<void()> wake_;                              // guarded by wake_mutex_
  std::array<std::atomic<std::uint64_t>, 3> outstanding_{}; // charged, not yet granted again
  std::array<std::atomic<std::uint64_t>, 3> returned_{};
};

} // namespace hexgen::transport
