// Sends a workload to an endpoint and measures every answer.
#pragma once

#include "tools/bench_serve/bench_options.hpp"
#include "tools/bench_serve/bench_report.hpp"
#include "tools/bench_serve/bench_workload.hpp"

#include <functional>
#include <string>
#include <vector>

namespace hexgen::tools {

struct bench_run {
  std::vector<bench_record> records; // in the workload's order; those not sent are left out
  double duration_s = 0;             // first send to last answer
  bool interrupted = false;          // by SIGINT
};

struct bench_progress {
  int total = 0, done = 0, failed = 0, running = 0;
  double elapsed_s = 0;
};

/// Blocks until all answers have come. Keeps connections. Throws std::runtime_error when the host
/// cannot be resolved or nothing listens there.
[[nodiscard]] bench_run run_workload(const bench_options& options,
                                     const std::vector<bench_request>& workload,
                                     const std::function<void(const bench_progress&)>& progress);

/// The first model of /v1/models. Throws std::runtime_error.
[[nodiscard]] std::string first_model(const bench_options& options);

} // namespace hexgen::tools
