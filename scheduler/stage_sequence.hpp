// The dynamic programme over ordered stages: for every set of devices the cheapest pipeline that
// uses exactly it, layer split included. Knows nothing of kinds, modes or protocols.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace hexgen::scheduler {

/// Devices of one node as a stage. Costs are of the caller's unit and linear in layers.
struct stage_option {
  int node = 0;
  std::vector<std::pair<int, int>> takes; // (class, how many of it)
  double per_layer = 0;
  double as_last = 0;                                            // added when it is the last stage
  int cap_middle = 0, cap_first = 0, cap_last = 0, cap_only = 0; // layers that fit
};

struct stage_problem {
  int layers = 0;
  int nodes = 0;
  std::vector<int> class_sizes; // interchangeable devices of one node
  std::vector<stage_option> options;
  std::vector<double> hop;      // nodes × nodes, infinite where there is no link
  std::vector<double> way_back; // from the last stage to the first, may be empty
};

struct sequenced_stage {
  int option = 0;
  int layers = 0;
};

struct stage_sequence {
  std::uint32_t code = 0; // mixed radix over the classes: which devices it uses
  double cost = 0;
  std::vector<sequenced_stage> stages;
};

/// Steps that sequence_stages takes for the problem, at most about 1e-8 s each.
[[nodiscard]] double sequence_work(const stage_problem& problem);

/// Cheapest sequences, one for each code that can hold all layers, sorted by code. Exact: time is
/// linear in layers, so some optimum has at most one stage beside the last that holds neither one
/// layer nor as many as fit. Precondition: sequence_work is affordable.
[[nodiscard]] std::vector<stage_sequence> sequence_stages(const stage_problem& problem);

/// How many of each class a code takes.
[[nodiscard]] std::vector<int> code_counts(const stage_problem& problem, std::uint32_t code);

} // namespace hexgen::scheduler
