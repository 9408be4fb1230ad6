// From what was measured of each request to the figures of a run.
#pragma once

#include "tools/bench_serve/bench_options.hpp"

#include <map>
#include <string>
#include <vector>

namespace hexgen::tools {

/// One request; times in seconds on the client's monotonic clock, `start` from the run's begin.
struct bench_record {
  bool ok = false;
  std::string error; // when not ok: "HTTP 429", "timed out", …
  double start_s = 0;
  double ttft_s = 0;
  double e2el_s = 0;                 // last token chunk - send
  std::vector<double> inter_token_s; // gaps between chunks
  int prompt_tokens = 0;
  int output_tokens = 0;

  /// (E2EL - TTFT) / (output tokens - 1); 0 for one token or none.
  [[nodiscard]] double tpot_s() const;
};

struct bench_figures {
  double mean = 0, median = 0, deviation = 0;
  std::map<double, double> percentiles;
};

/// Linear between the neighbours, as numpy does. 0 of nothing.
[[nodiscard]] double percentile(const std::vector<double>& sorted, double percent);
[[nodiscard]] bench_figures figures_of(std::vector<double> values,
                                       const std::vector<double>& percentiles);

struct bench_report {
  double duration_s = 0;
  int completed = 0, failed = 0;
  long long input_tokens = 0, output_tokens = 0;
  int peak_concurrency = 0;
  int within_deadlines = 0; // completed requests that met every deadline
  std::map<std::string, int> errors;
  std::map<std::string, bench_figures> milliseconds; // ttft, tpot, itl, e2el
};

/// `records` of the measured requests only. Failed ones count in no latency, and as missed
/// deadlines.
[[nodiscard]] bench_report make_report(const std::vector<bench_record>& records, double duration_s,
                                       const bench_options& options);
[[nodiscard]] std::string report_text(const bench_report& report, const bench_options& options);
[[nodiscard]] std::string report_json(const bench_report& report, const bench_options& options);

} // namespace hexgen::tools
