#include "transport/ucx_group.hpp"

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <thread>

namespace hexgen::transport {
namespace {

constexpr std::int64_t back_soon_ns = 300'000; // a layer's time between two exchanges
constexpr std::chrono::milliseconds look_again_interval{1};
constexpr std::int64_t politeness_ns = 20'000; // then others may have the core

std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

} // namespace

struct ucx_group::member {
  member(boost::asio::io_context& io, const std::shared_ptr<ucx_path>& p)
      : path(p), descriptor(io, p->worker().event_fd()) {}

  std::shared_ptr<ucx_path> path;
  boost::asio::posix::stream_descriptor descriptor; // UCX's own: released, never closed
  bool waiting = false;
  bool removed = false;
};

ucx_group::~ucx_group() {
  for (const auto& m : *members_)
    m->descriptor.release();
}

std::shared_ptr<const ucx_group::members> ucx_group::all() const {
  const std::lock_guard lock(mutex_);
  return members_;
}

void ucx_group::add(const std::shared_ptr<ucx_path>& path) {
  auto more = std::make_shared<members>(*all());
  more->push_back(std::make_shared<member>(io_, path));
  const std::lock_guard lock(mutex_);
  members_ = std::move(more);
}

void ucx_group::remove(const ucx_path& path) {
  auto left = std::make_shared<members>(*all());
  const auto found = std::find_if(left->begin(), left->end(),
                                  [&](const auto& m) { return m->path.get() == &path; });
  if (found == left->end())
    return;
  (*found)->removed = true;
  (*found)->descriptor.release();
  left->erase(found);
  const std::lock_guard lock(mutex_);
  members_ = std::move(left);
}

bool ucx_group::progress() {
  bool worked = false;
  const auto members = all(); // a callback may remove one
  for (const auto& m : *members)
    if (!m->removed && m->path->awake())
      worked = m->path->receive() || worked;
  return worked;
}

bool ucx_group::attended() const {
  return attending_ != 0 || now_ns() < attended_until_ns_;
}

void ucx_group::look_again() {
  if (std::exchange(looking_again_, true))
    return;
  look_again_.expires_after(look_again_interval);
  look_again_.async_wait([this](auto) { looking_again_ = false; });
}

bool ucx_group::arm() {
  watched_ = false; // before attended(): who then leaves without a frame sees it and wakes us
  if (attended()) {
    look_again();
    return true;
  }
  bool every = true;
  const auto members = all();
  for (const auto& m : *members) {
    if (!m->path->awake())
      continue;
    bool armed = false;
    {
      const std::lock_guard lock(m->path->worker().mutex());
      armed = m->path->worker().arm();
    }
    every = every && armed;
    if (!armed)
      continue;
    m->path->sleep();
    if (m->waiting)
      continue;
    m->waiting = true;
    m->descriptor.async_wait(m->descriptor.wait_read, [this, m](auto error) {
      m->waiting = false;
      if (error || m->removed)
        return;
      fired_ = true;
      m->path->wake();
    });
  }
  watched_ = every;
  return every;
}

bool ucx_group::take_fired() {
  const bool fired = fired_;
  fired_ = false;
  return fired;
}

void ucx_group::attend(const std::function<bool()>& ready, std::chrono::microseconds limit) {
  const auto members = all();
  if (members->empty() || ready())
    return;
  ++attending_;
  bool came = false;
  std::int64_t worked_at = now_ns();
  for (std::int64_t idle_ns = 0; !came && idle_ns < limit / std::chrono::nanoseconds(1);) {
    bool worked = false;
    for (const auto& m : *members)
      worked = m->path->receive() || worked;
    if (idle_ns > politeness_ns)
      std::this_thread::yield();
    const std::int64_t now = now_ns();
    worked_at = worked ? now : worked_at;
    idle_ns = now - worked_at;
    came = ready();
  }
  attended_until_ns_ = came ? now_ns() + back_soon_ns : 0;
  --attending_;
  if (!came && !watched_)
    boost::asio::post(io_, [] {}); // its loop then arms what this thread leaves alone
}

} // namespace hexgen::transport
