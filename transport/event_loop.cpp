#include "transport/event_loop.hpp"

#include "transport/ucx_path.hpp"
#include "transport/ucx_worker.hpp"

#include <boost/asio/posix/stream_descriptor.hpp>

#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace hexgen::transport {
namespace {

constexpr std::chrono::microseconds spin_time{50};
constexpr int unarmed_turns = 16;
constexpr std::chrono::microseconds unarmed_wait{200};
constexpr int progress_turns = 64; // then Asio's handlers get their turn

/// UCX's event descriptor in Asio's reactor; it stays UCX's own.
class ucx_event {
public:
  ucx_event(boost::asio::io_context& io, int fd) : descriptor_(io, fd) {}
  ~ucx_event() { descriptor_.release(); }
  ucx_event(const ucx_event&) = delete;
  ucx_event& operator=(const ucx_event&) = delete;

  void wait() {
    if (waiting_)
      return;
    waiting_ = true;
    descriptor_.async_wait(descriptor_.wait_read, [this](auto error) {
      waiting_ = false;
      fired_ = !error;
    });
  }
  /// The handler that just ran was this one's.
  bool take_fired() {
    const bool fired = fired_;
    fired_ = false;
    return fired;
  }

private:
  boost::asio::posix::stream_descriptor descriptor_;
  bool waiting_ = false;
  bool fired_ = false;
};

bool arm(ucx_worker& worker) {
  const std::lock_guard lock(worker.mutex());
  return worker.arm();
}

bool progress(ucx_worker& worker) {
  int turns = 0;
  std::vector<std::shared_ptr<ucx_path>> ready;
  {
    const std::lock_guard lock(worker.mutex());
    while (turns < progress_turns && worker.progress())
      ++turns;
    ready = worker.take_ready();
  }
  for (const auto& path : ready)
    path->deliver();
  return turns != 0;
}

} // namespace

void run_event_loop(boost::asio::io_context& io, ucx_worker* worker, wakeup wake) {
  using clock = std::chrono::steady_clock;
  if (worker == nullptr && wake == wakeup::event) {
    io.run();
    return;
  }
  std::unique_ptr<ucx_event> event;
  if (worker != nullptr && wake != wakeup::busy)
    event = std::make_unique<ucx_event>(io, worker->event_fd());
  clock::time_point idle_since = clock::now();
  int unarmed = 0;
  while (!io.stopped()) {
    bool worked = worker != nullptr && progress(*worker);
    if (worked || wake != wakeup::event)
      worked = io.poll() != 0 || worked;
    if (wake == wakeup::busy)
      continue;
    if (worked) {
      unarmed = 0;
      if (wake == wakeup::spin)
        idle_since = clock::now();
      continue;
    }
    if (wake == wakeup::spin && clock::now() - idle_since < spin_time)
      continue;
    if (worker != nullptr) {
      if (!arm(*worker)) {
        // Something came since the last progress, or (it cannot be told apart) sends wait for
        // room at a peer that does not read: then no event will come, and spinning starves it.
        if (++unarmed > unarmed_turns)
          io.run_one_for(unarmed_wait);
        else
          std::this_thread::yield();
        io.poll();
        continue;
      }
      unarmed = 0;
      event->wait();
    }
    io.run_one();
    // A wake-up by UCX goes straight to its progress; others may have brought company.
    if (event == nullptr || !event->take_fired())
      io.poll();
    if (wake == wakeup::spin)
      idle_since = clock::now();
  }
}

} // namespace hexgen::transport
