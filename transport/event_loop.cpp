#include "transport/event_loop.hpp"

#include "transport/ucx_group.hpp"

#include <chrono>
#include <thread>

namespace hexgen::transport {
namespace {

constexpr std::chrono::microseconds spin_time{50};
// A peer that reads makes room in less; one that does not must not cost a core.
constexpr std::chrono::microseconds unarmed_limit{500};
constexpr std::chrono::milliseconds unarmed_nap{1};
} // namespace

void run_event_loop(boost::asio::io_context& io, ucx_group* group, wakeup wake) {
  using clock = std::chrono::steady_clock;
  if (group == nullptr && wake == wakeup::event) {
    io.run();
    return;
  }
  clock::time_point worked_at = clock::now();
  while (!io.stopped()) {
    bool worked = group != nullptr && group->progress();
    if (worked || wake != wakeup::event)
      worked = io.poll() != 0 || worked;
    if (wake == wakeup::busy)
      continue;
    if (worked) {
      worked_at = clock::now();
      continue;
    }
    if (wake == wakeup::spin && clock::now() - worked_at < spin_time)
      continue;
    if (group != nullptr && !group->arm()) {
      // Something came since the last progress, or (it cannot be told apart) sends wait for
      // room at a peer that does not read: then no event will come, and spinning starves it.
      if (clock::now() - worked_at > unarmed_limit)
        io.run_one_for(unarmed_nap);
      else
        std::this_thread::yield();
      io.poll();
      continue;
    }
    io.run_one();
    // A wake-up by UCX goes straight to its progress; others may have brought company.
    if (group == nullptr || !group->take_fired())
      io.poll();
    worked_at = clock::now();
  }
}

} // namespace hexgen::transport
