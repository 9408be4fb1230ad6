// One seed of a whole cluster's life: machines, faults, clients, and the judgement.
#pragma once

#include "tests/chaos/simulated_agent.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace hexgen::tests {

struct simulation_options {
  std::uint64_t seed = 1;
  std::uint64_t steps = 0; // events at most; 0: until it is over
  planted_bug bug = planted_bug::none;
  std::function<void(const std::string&)> log; // empty: silent
};

struct simulation_result {
  std::vector<std::string> violations; // none: all is well
  std::size_t requests = 0, refused = 0, finished = 0;
  std::uint64_t moved = 0;    // resubmissions
  std::uint64_t refilled = 0; // steps of inherited blocks that a new stage computed
  std::uint64_t relayed = 0;  // connections through a third process
  std::uint64_t faults = 0;   // that were injected
  std::uint64_t events = 0;
  std::uint64_t virtual_ms = 0;
};

/// Pure: the same options give the same history.
[[nodiscard]] simulation_result simulate(const simulation_options& options);

} // namespace hexgen::tests
