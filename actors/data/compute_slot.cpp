#include "actors/data/compute_slot.hpp"

#include <ctime>
#include <thread>

namespace hexgen::actors {

double speed_limiter::work_us() const {
  timespec now{};
  clock_gettime(counts_ == clock::thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
}

double speed_limiter::settle(bool all) {
  constexpr double worth_sleeping_us = 300;
  if (owed_us_ <= 0 || (!all && owed_us_ < worth_sleeping_us))
    return 0;
  const auto begin = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double, std::micro>(owed_us_));
  const double waited =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
  owed_us_ -= waited;
  return waited;
}

} // namespace hexgen::actors
