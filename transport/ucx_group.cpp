#include "transport/ucx_group.hpp"

#include <boost/asio/posix/stream_descriptor.hpp>

#include <algorithm>
#include <mutex>

namespace hexgen::transport {
namespace {

constexpr int progress_turns = 64; // then Asio's handlers get their turn

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
  for (const auto& m : members_)
    m->descriptor.release();
}

void ucx_group::add(const std::shared_ptr<ucx_path>& path) {
  members_.push_back(std::make_shared<member>(io_, path));
}

void ucx_group::remove(const ucx_path& path) {
  const auto found = std::find_if(members_.begin(), members_.end(),
                                  [&](const auto& m) { return m->path.get() == &path; });
  if (found == members_.end())
    return;
  (*found)->removed = true;
  (*found)->descriptor.release();
  members_.erase(found);
}

bool ucx_group::progress() {
  bool worked = false;
  const auto members = members_; // a callback may remove one
  for (const auto& m : members) {
    if (m->removed || !m->path->awake())
      continue;
    int turns = 0;
    {
      const std::lock_guard lock(m->path->worker().mutex());
      while (turns < progress_turns && m->path->worker().progress())
        ++turns;
    }
    // Without the lock: whoever a frame wakes may want to send at once.
    if (turns != 0)
      m->path->deliver();
    worked = worked || turns != 0;
  }
  return worked;
}

bool ucx_group::arm() {
  bool all = true;
  for (const auto& m : members_) {
    if (!m->path->awake())
      continue;
    bool armed = false;
    {
      const std::lock_guard lock(m->path->worker().mutex());
      armed = m->path->worker().arm();
    }
    all = all && armed;
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
  return all;
}

bool ucx_group::take_fired() {
  const bool fired = fired_;
  fired_ = false;
  return fired;
}

} // namespace hexgen::transport
