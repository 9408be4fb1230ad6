#include "compute/sampling/penalties.hpp"

#include <algorithm>
#include <limits>

namespace hexgen::compute {

penalty_counts::penalty_counts(float repetition, float presence, float frequency)
    : repetition_(repetition), presence_(presence), frequency_(frequency) {}

bool penalty_counts::active() const {
  return repetition_ != 1.0F || presence_ != 0.0F || frequency_ != 0.0F;
}

penalty_counts::seen& penalty_counts::entry(token_id id) {
  const auto [at, added] = places_.try_emplace(id, seen_.size());
  if (added)
    seen_.push_back({id, 0});
  return seen_[at->second];
}

void penalty_counts::add_prompt(std::span<const token_id> prompt) {
  if (repetition_ == 1.0F)
    return;
  for (const auto id : prompt)
    entry(id);
}

void penalty_counts::add_output(token_id id) {
  if (active())
    ++entry(id).outputs;
}

void penalty_counts::apply(std::span<float> logits) const {
  constexpr float most = std::numeric_limits<float>::max();
  for (const auto& s : seen_) {
    if (s.id < 0 || static_cast<std::size_t>(s.id) >= logits.size())
      continue;
    float& logit = logits[static_cast<std::size_t>(s.id)];
    if (logit < -most)
      continue;
    float value = logit > 0 ? logit / repetition_ : logit * repetition_;
    if (s.outputs > 0) {
      value -= frequency_ * static_cast<float>(s.outputs);
      value -= presence_;
    }
    logit = std::clamp(value, -most, most);
  }
}

} // namespace hexgen::compute
