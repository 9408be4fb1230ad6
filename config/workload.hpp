// What requests arrive: how they are spaced and how long they are.
#pragma once

#include <string>
#include <vector>

namespace hexgen::config {

/// A length of prompt and output with its share of the requests.
struct request_kind {
  int prompt_tokens = 0, output_tokens = 0;
  double share = 0;
};

enum class arrival_process { poisson, gamma, mmpp, trace };

/// A recorded request: seconds from the start, index into `kinds`.
struct trace_entry {
  double time_s = 0;
  int kind = 0;
};

struct workload {
  std::string name;
  arrival_process arrivals = arrival_process::poisson;
  double gamma_cv = 1;             // coefficient of variation of the gaps (gamma)
  double burst_factor = 4;         // rate in a burst over the mean rate (mmpp)
  double burst_share = 0.1;        // share of the time in bursts (mmpp)
  double burst_seconds = 10;       // mean length of a burst (mmpp)
  std::vector<request_kind> kinds; // shares sum to 1
  std::vector<trace_entry> trace;  // rising times; rates rescale it

  [[nodiscard]] double mean_prompt() const;
  [[nodiscard]] double mean_output() const;
  [[nodiscard]] int longest() const; // prompt + output
};

/// Throws config_error naming file, line and key. A trace file (CSV: seconds, prompt, output) is
/// looked for beside the workload.
[[nodiscard]] workload read_workload(const std::string& path);
[[nodiscard]] workload parse_workload(const std::string& file, const std::string& text);
/// One kind of request, Poisson.
[[nodiscard]] workload fixed_workload(int prompt_tokens, int output_tokens);

} // namespace hexgen::config
