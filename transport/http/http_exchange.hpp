// The state that one request's responder (any thread) and its connection (a server thread) share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>

namespace hexgen::transport {

class http_exchange {
public:
  explicit http_exchange(std::size_t buffer_limit)
      : buffer_limit_(static_cast<std::int64_t>(buffer_limit)) {}

  /// True for the first caller: the right to send a whole answer or to start a stream.
  bool claim() { return !claimed_.exchange(true); }
  [[nodiscard]] bool claimed() const { return claimed_; }
  [[nodiscard]] bool over() const { return over_; }

  /// Accounts for queued bytes; false past the limit.
  bool queue(std::size_t bytes) {
    const auto add = static_cast<std::int64_t>(bytes);
    return queued_.fetch_add(add) + add <= buffer_limit_;
  }
  void sent(std::size_t bytes) { queued_ -= static_cast<std::int64_t>(bytes); }

  /// Runs at once when the client has already gone.
  void on_closed(std::function<void()> callback);
  /// The answer is complete: the callback is dropped.
  void complete();
  /// The client went: the callback runs, unless the answer was complete.
  void abandon();

private:
  const std::int64_t buffer_limit_;
  std::atomic<bool> claimed_ = false;
  std::atomic<bool> over_ = false; // complete or abandoned
  std::atomic<std::int64_t> queued_ = 0;
  std::mutex mutex_;
  bool complete_ = false;
  std::function<void()> closed_;
};

} // namespace hexgen::transport
