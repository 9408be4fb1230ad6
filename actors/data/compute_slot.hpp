// A device's turn: whoever computes holds it, whoever waits for a peer gives it up.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace hexgen::actors {

/// Two generations may share a device while one drains. Each has a thread of its own, and only the
/// holder of the slot computes. A rank that waits inside a collective gives the slot back, so two
/// generations whose groups cross on two devices cannot wait for each other for ever.
/// Turns are taken in order of asking.
class compute_slot {
public:
  void lock() {
    std::unique_lock guard(mutex_);
    const auto ticket = next_++;
    turn_.wait(guard, [&] { return ticket == serving_; });
  }
  void unlock() {
    {
      const std::lock_guard guard(mutex_);
      ++serving_;
    }
    turn_.notify_all();
  }

private:
  std::mutex mutex_;
  std::condition_variable turn_;
  std::uint64_t next_ = 0;
  std::uint64_t serving_ = 0;
};

/// Holds a device back to `speed` of what it is: after computing for t it owes t * (1/speed - 1) of
/// waiting. Short debts are carried on, since a sleep of less than the timer's slack overshoots;
/// what a sleep overshoots is credited.
class speed_limiter {
public:
  /// What the device's work is counted by: all the time, or the thread's time on a processor, in
  /// which others' turns on it are not.
  enum class clock { wall, thread };
  explicit speed_limiter(double speed, clock counts = clock::wall)
      : factor_(speed < 1.0 ? 1.0 / speed - 1.0 : 0.0), counts_(counts) {}
  void resume() {
    since_ = std::chrono::steady_clock::now();
    work_since_us_ = work_us();
  }
  /// Stops the clock; returns the time since resume(), in microseconds. By the thread that resumed.
  double pause() {
    owed_us_ += (work_us() - work_since_us_) * factor_;
    return elapsed_us();
  }
  /// Waits off the debt when it is worth a sleep, or in any case when `all`.
  /// Returns the microseconds waited.
  double settle(bool all);

private:
  [[nodiscard]] double elapsed_us() const {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - since_)
        .count();
  }
  [[nodiscard]] double work_us() const;

  double factor_;
  clock counts_;
  double owed_us_ = 0, work_since_us_ = 0;
  std::chrono::steady_clock::time_point since_;
};

} // namespace hexgen::actors
