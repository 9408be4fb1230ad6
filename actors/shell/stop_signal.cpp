#include "actors/shell/stop_signal.hpp"

#include <csignal>
#include <ctime>

namespace hexgen::actors {
namespace {

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

} // namespace

stop_signal::stop_signal() {
  std::signal(SIGPIPE, SIG_IGN);
  const auto set = stop_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

bool stop_signal::wait_for(std::chrono::milliseconds limit) {
  if (seen_)
    return true;
  const auto set = stop_signals();
  const timespec t{static_cast<std::time_t>(limit.count() / 1000),
                   static_cast<long>(limit.count() % 1000) * 1'000'000};
  seen_ = sigtimedwait(&set, nullptr, &t) > 0;
  return seen_;
}

void stop_signal::release() {
  const auto set = stop_signals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

} // namespace hexgen::actors
