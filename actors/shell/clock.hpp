// The time that the shells hand to the functional cores.
#pragma once

#include <chrono>
#include <cstdint>

namespace hexgen::actors {

/// Microseconds of the monotonic clock; never 0.
inline std::uint64_t now_us() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count()) +
         1;
}
inline std::uint64_t now_ms() {
  return now_us() / 1000;
}

} // namespace hexgen::actors
