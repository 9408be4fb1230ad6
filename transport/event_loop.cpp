#include "transport/event_loop.hpp"

#include "transport/ucx_group.hpp"

#include <chrono>
#include <thread>

namespace hexgen::transport {
namespace {

constexpr std::chrono::microseconds spin_time{50};
constexpr int unarmed_turns = 16;
constexpr std::chrono::microseconds unarmed_wait{200};
} // namespace

void run_event_loop(boost::asio::io_context& io, ucx_group* group, wakeup wake) {
  using clock = std::chrono::steady_clock;
  if (group == nullptr && wake == wakeup::event) {
    io.run();
    return;
  }
  clock::time_point idle_since = clock::now();
  int unarmed = 0;
  while (!io.stopped()) {
    bool worked = group != nullptr && group->progress();
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
    if (group != nullptr) {
      if (!group->arm()) {
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
    }
    io.run_one();
    // A wake-up by UCX goes straight to its progress; others may have brought company.
    if (group == nullptr || !group->take_fired())
      io.poll();
    if (wake == wakeup::spin)
      idle_since = clock::now();
  }
}

} // namespace hexgen::transport
