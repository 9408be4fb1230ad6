// Calibrated mode's search: closed-form searches propose, the engine's batching policy judges.
#pragma once

#include "tools/planning/solve.hpp"

#include <memory>

namespace hexgen::tools {

struct batched_found {
  std::vector<scheduler::pipeline> lines; // empty: no plan
  std::unique_ptr<scheduler::cost_model> costs;
  int concurrency = 0; // that `costs` was made for
  scheduler::search_result told;
};

/// Two rounds. The closed form searches at several sizes of batch, each with room for its KV; the
/// best few of each and the setting's own seeds are simulated as the engine batches. From the
/// winners, at the best of those sizes, the search goes on with that simulation as the judge. With
/// a `concurrency` in the flags only that is tried.
[[nodiscard]] batched_found search_batched(const input_flags& flags, const solve_flags& how,
                                           const planning_inputs& inputs,
                                           const scheduler::search_setting& setting,
                                           const scheduler::layout_setting& layouts);

} // namespace hexgen::tools
