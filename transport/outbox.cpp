#include "transport/outbox.hpp"

#include "transport/record.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace hexgen::transport {
namespace {

constexpr std::uint64_t control_reserve_bytes = 16U << 20;

} // namespace

send_result outbox::push(frame f, bool& wake) {
  wake = false;
  const std::uint64_t cost = window_cost(f.head.size(), f.payload.size());
  const std::lock_guard lock(mutex_);
  if (closed_)
    return send_result::down;
  const std::uint64_t bound =
      bound_bytes_ + (f.traffic_class == traffic::control ? control_reserve_bytes : 0);
  // An empty queue takes any frame: a bound below one frame must not stop the link.
  if (queued_bytes_ != 0 && queued_bytes_ + cost > bound)
    return send_result::would_block;
  queued_bytes_ += cost;
  lanes_[static_cast<std::size_t>(f.traffic_class)].frames.push_back(std::move(f));
  wake = std::exchange(asleep_, false);
  return send_result::accepted;
}

bool outbox::overtake(const frame& f, send_result& result) {
  const std::uint64_t cost = window_cost(f.head.size(), f.payload.size());
  const std::lock_guard lock(mutex_);
  lane& data = lanes_[static_cast<std::size_t>(traffic::data)];
  result = closed_ ? send_result::down : send_result::accepted;
  if (closed_)
    return true;
  if (!data.frames.empty() || data.window <= 0 ||
      (queued_bytes_ != 0 && queued_bytes_ + cost > bound_bytes_))
    return false;
  data.window -= static_cast<std::int64_t>(cost);
  queued_bytes_ += cost;
  return true;
}

bool outbox::pop(traffic traffic_class, frame& out) {
  const std::lock_guard lock(mutex_);
  lane& from = lanes_[static_cast<std::size_t>(traffic_class)];
  if (from.frames.empty())
    return false;
  if (traffic_class != traffic::control) {
    if (from.window <= 0)
      return false;
    const frame& next = from.frames.front();
    from.window -= static_cast<std::int64_t>(window_cost(next.head.size(), next.payload.size()));
  }
  out = std::move(from.frames.front());
  from.frames.pop_front();
  return true;
}

bool outbox::sleep() {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    const bool may_go = static_cast<traffic>(i) == traffic::control || lanes_[i].window > 0;
    if (!lanes_[i].frames.empty() && may_go)
      return false;
  }
  asleep_ = true;
  return true;
}

void outbox::sent(std::uint64_t cost) {
  const std::lock_guard lock(mutex_);
  queued_bytes_ -= std::min(cost, queued_bytes_);
}

void outbox::grant(traffic traffic_class, std::uint64_t bytes) {
  constexpr std::int64_t cap = std::numeric_limits<std::int64_t>::max() / 4;
  const std::lock_guard lock(mutex_);
  std::int64_t& window = lanes_[static_cast<std::size_t>(traffic_class)].window;
  const auto more = static_cast<std::int64_t>(std::min(bytes, static_cast<std::uint64_t>(cap)));
  window = window > cap - more ? cap : window + more;
}

void outbox::close() {
  std::array<lane, 3> dropped; // frames may own large buffers: freed outside the lock
  const std::lock_guard lock(mutex_);
  closed_ = true;
  std::swap(dropped, lanes_);
  queued_bytes_ = 0;
}

bool outbox::idle() const {
  const std::lock_guard lock(mutex_);
  return queued_bytes_ == 0;
}

} // namespace hexgen::transport
