#include "transport/http/http_exchange.hpp"

#include <utility>

namespace hexgen::transport {

void http_exchange::on_closed(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (complete_)
      return;
    if (!over_) {
      std::swap(closed_, callback);
      return; // the former callback is destroyed after the lock is released
    }
  }
  if (callback)
    callback();
}

void http_exchange::complete() {
  std::function<void()> dropped; // may hold the responder itself: destroyed outside the lock
  const std::lock_guard lock(mutex_);
  complete_ = true;
  over_ = true;
  std::swap(dropped, closed_);
}

void http_exchange::abandon() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (over_)
      return;
    over_ = true;
    std::swap(callback, closed_);
  }
  if (callback)
    callback();
}

} // namespace hexgen::transport
