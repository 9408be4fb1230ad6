// The paper's evaluation, row by row: its arms, their searches, and what each figure is beside.
#pragma once

#include "tools/planning/inputs.hpp"

#include <functional>
#include <string>
#include <vector>

namespace hexgen::tools {

struct evaluation_flags {
  input_flags inputs;
  std::string part = "all"; // paper, helix
  double seconds_each = 8;  // for each search at most
  std::size_t requests = 100'000;
  bool progress = false; // tell of every improvement on stderr
};

struct evaluation_row {
  std::string name;
  std::vector<double> values;
  std::string expected; // the reference simulation's figures, in paper mode
  std::string paper;    // and the paper's, or Helix's
  std::string spread;   // of the values over short traces
};

/// The reference simulation judged its plans on traces so short; spreads tell how far figures
/// differ between such traces.
inline constexpr std::size_t short_traces = 20, short_trace_requests = 4000;

struct evaluation_listener {
  std::function<void(const evaluation_row&)> row; // as soon as it is known
  std::function<void(const std::string&)> doing;  // a search or a long count that begins
};

/// Runs until all rows are known or Ctrl-C, which leaves those that are known. Throws where the
/// inputs do not load.
void evaluate(const evaluation_flags& flags, const evaluation_listener& listener);

/// "1.02 / 1.53 / 2", three digits each.
[[nodiscard]] std::string joined(const std::vector<double>& values);

} // namespace hexgen::tools
