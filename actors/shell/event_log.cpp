#include "actors/shell/event_log.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>

namespace hexgen::actors {

void event_log::write(const std::string& line) const {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char stamp[40];
  const auto used = std::strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(stamp + used, sizeof stamp - used, ".%03dZ", ms);
  std::string out = std::string("time=") + stamp + " process=" + process_ + " " + line;
  for (auto& c : out)
    if (static_cast<unsigned char>(c) < 32 || c == 127)
      c = '?';
  out += '\n';
  // One write a line: lines of several threads and processes do not mix.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, out.data(), out.size());
}

} // namespace hexgen::actors
