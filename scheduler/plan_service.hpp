// From pipelines with device numbers to what the simulators need.
#pragma once

#include "scheduler/cost_model.hpp"
#include "scheduler/simulator.hpp"
#include "scheduler/token_simulator.hpp"

namespace hexgen::scheduler {

/// Latency and occupancy of each kind of request.
[[nodiscard]] line_service service_of(const cost_model& costs, const pipeline& line,
                                      const std::vector<config::request_kind>& kinds,
                                      occupancy mode);

/// Those of a plan's lines, in their order.
[[nodiscard]] std::vector<line_service> services_of(const cost_model& costs,
                                                    const std::vector<pipeline>& lines,
                                                    const std::vector<config::request_kind>& kinds,
                                                    occupancy mode);
/// As the simulators take them: these point into `services`.
[[nodiscard]] std::vector<const line_service*>
pointers_to(const std::vector<line_service>& services);

/// Times of every stage and hop, prompt and one token apart (paper mode's formulas are linear).
[[nodiscard]] line_stages stages_of(const cost_model& costs, const pipeline& line,
                                    const std::vector<config::request_kind>& kinds);

/// Each kind's latency alone in the line: what deadlines are multiples of.
[[nodiscard]] std::vector<float> base_latencies(const cost_model& costs, const pipeline& line,
                                                const std::vector<config::request_kind>& kinds);

} // namespace hexgen::scheduler
