// Request streams: when requests come and of which kind they are.
#pragma once

#include "config/workload.hpp"

#include <cstdint>
#include <vector>

namespace hexgen::scheduler {

/// At a mean rate of one request per second; a rate r divides the times by r.
struct request_stream {
  std::vector<double> times;
  std::vector<std::uint16_t> kinds; // indices into the workload's kinds
};

/// Poisson, gamma, two-state Markov-modulated Poisson, or the workload's trace repeated until
/// `count`. Same seed, same stream.
[[nodiscard]] request_stream make_stream(const config::workload& workload, std::size_t count,
                                         std::uint64_t seed);

} // namespace hexgen::scheduler
