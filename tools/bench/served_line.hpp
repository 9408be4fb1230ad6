// A replica in virtual time: the engine's own batching over stages whose steps cost what is given.
#pragma once

#include "scheduler/engine/step_batcher.hpp"

#include <deque>
#include <unordered_map>
#include <vector>

namespace hexgen::tools {

/// What a step takes a stage, in microseconds.
struct stage_cost {
  double fixed_us = 0, token_us = 0;
  double row_us = 0; // of each row that a token is chosen from
};

struct line_shape {
  std::vector<stage_cost> stages;
  double overhead_us = 0; // of a step beside its stages: messages, and the way back
  std::uint32_t blocks = 4096;
  int max_running = 256;
  int max_step_tokens = 512;
  bool prefix_cache = true;
};

class served_line {
public:
  using time_us = scheduler::time_us;
  struct token_out {
    scheduler::sequence_id id = 0;
    int cached = 0; // tokens of its prompt
    bool ends = false;
  };

  explicit served_line(line_shape shape);
  /// False: it can never run here.
  bool submit(scheduler::sequence_id id, std::vector<scheduler::token> prompt, int output,
              time_us now);
  /// When the oldest step comes back; nothing: none is in flight.
  [[nodiscard]] std::optional<time_us> returns_at() const;
  /// The oldest step comes back, with these tokens.
  std::vector<token_out> land();
  [[nodiscard]] scheduler::batcher_stats stats() const { return batcher_.stats(); }

private:
  struct flight {
    std::uint64_t number = 0;
    double back_us = 0;
    std::vector<scheduler::sequence_id> wants;
  };
  void form(double now_us);

  line_shape shape_;
  scheduler::step_batcher batcher_;
  std::vector<double> free_us_; // of each stage
  std::deque<flight> flights_;
  std::unordered_map<scheduler::sequence_id, int> left_; // tokens to come
};

} // namespace hexgen::tools
