// The exact, slow form of the simulator: every token visits every stage.
#pragma once

#include "scheduler/simulator.hpp"

#include <vector>

namespace hexgen::scheduler {

/// One pipeline's times by stage and kind of request.
struct line_stages {
  struct times {
    double prefill_s = 0, decode_s = 0;         // in the stage
    double prefill_hop_s = 0, decode_hop_s = 0; // after it
  };
  std::vector<std::vector<times>> kinds; // [kind][stage]
  std::vector<int> output_tokens;        // by kind
};

/// Like simulate(), but stages serve tokens first come, first served, and at most as many requests
/// are in a pipeline as it has stages. `lines` decide who gets a request, as in simulate().
void simulate_tokens(const std::vector<const line_service*>& lines,
                     const std::vector<line_stages>& stages, const request_stream& stream,
                     const simulation& setting, std::vector<float>& ratios);

} // namespace hexgen::scheduler
