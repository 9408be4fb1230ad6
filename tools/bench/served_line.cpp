#include "tools/bench/served_line.hpp"

#include <algorithm>
#include <cmath>

namespace hexgen::tools {

using namespace hexgen::scheduler;

namespace {

batcher_options options_of(const line_shape& shape) {
  batcher_options o;
  o.blocks = shape.blocks;
  o.steps_in_flight = static_cast<int>(shape.stages.size());
  o.max_step_tokens = shape.max_step_tokens;
  o.even_chunk = 16; // as an agent of processors
  o.max_running = shape.max_running;
  o.max_waiting = 1 << 20;
  o.max_sequence = 1 << 20;
  o.prefix_cache = shape.prefix_cache;
  return o;
}

} // namespace

served_line::served_line(line_shape shape)
    : shape_(std::move(shape)), batcher_(options_of(shape_)), free_us_(shape_.stages.size(), 0.0) {}

bool served_line::submit(sequence_id id, std::vector<token> prompt, int output, time_us now) {
  sequence_request r;
  r.id = id;
  r.tokens = std::move(prompt);
  r.max_new = output;
  if (batcher_.submit(std::move(r), now) != submit_verdict::accepted)
    return false;
  left_[id] = output;
  form(static_cast<double>(now));
  return true;
}

std::optional<time_us> served_line::returns_at() const {
  if (flights_.empty())
    return std::nullopt;
  return static_cast<time_us>(std::ceil(flights_.front().back_us));
}

std::vector<served_line::token_out> served_line::land() {
  const auto done = std::move(flights_.front());
  flights_.pop_front();
  std::vector<token_out> out;
  std::vector<sampled_id> tokens;
  for (const auto id : done.wants) {
    const auto left = left_.find(id);
    const bool ends = --left->second == 0;
    if (ends)
      left_.erase(left);
    out.push_back({id, batcher_.cached_tokens(id), ends});
    // A token that makes no two answers alike: only prompts are shared.
    tokens.push_back({id, static_cast<token>(id & 0x7fffffff), ends});
  }
  batcher_.complete(done.number, tokens, static_cast<time_us>(done.back_us));
  form(done.back_us);
  return out;
}

void served_line::form(double now_us) {
  while (auto step = batcher_.next(static_cast<time_us>(now_us))) {
    flight f;
    f.number = step->number;
    double rows = 0;
    for (const auto& entry : step->entries) {
      rows += entry.logits;
      if (entry.logits > 0)
        f.wants.push_back(entry.sequence);
    }
    double at = now_us;
    for (std::size_t j = 0; j < shape_.stages.size(); ++j) {
      const auto& cost = shape_.stages[j];
      at = std::max(at, free_us_[j]) + cost.fixed_us +
           cost.token_us * static_cast<double>(step->ids.size()) + cost.row_us * rows;
      free_us_[j] = at;
    }
    f.back_us = at + shape_.overhead_us;
    flights_.push_back(std::move(f));
  }
}

} // namespace hexgen::tools
