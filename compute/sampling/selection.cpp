#include "compute/sampling/selection.hpp"

#include "compute/sampler.hpp"
#include "compute/sampling/exact_math.hpp"

#include <algorithm>
#include <limits>

namespace hexgen::compute {

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();

double mass(const std::vector<scored_token>& tokens) {
  double sum = 0;
  for (const auto& t : tokens)
    sum += static_cast<double>(t.score);
  return sum;
}

} // namespace

token_id token_selector::argmax(std::span<const float> logits) {
  // Runs keep the inner loop free of the index, so that it vectorises.
  constexpr std::size_t run = 256;
  float best = forbidden;
  std::size_t best_run = logits.size();
  for (std::size_t begin = 0; begin < logits.size(); begin += run) {
    const auto part = logits.subspan(begin, std::min(run, logits.size() - begin));
    float highest = forbidden;
    for (const float l : part)
      highest = l > highest ? l : highest;
    if (highest > best) {
      best = highest;
      best_run = begin;
    }
  }
  for (std::size_t i = best_run; i < logits.size(); ++i)
    if (logits[i] == best)
      return static_cast<token_id>(i);
  return -1;
}

void token_selector::top(std::span<const float> logits, std::size_t count,
                         std::vector<scored_token>& out) const {
  out.clear();
  if (count == 0)
    return;
  // A heap with the worst of the best so far in front: most tokens fail one comparison.
  float bar = forbidden;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > bar)) // equal scores: the lower id, which came first, stays
      continue;
    if (out.size() == count) {
      std::pop_heap(out.begin(), out.end(), ranks_before);
      out.pop_back();
    }
    out.push_back({logits[i], static_cast<token_id>(i)});
    std::push_heap(out.begin(), out.end(), ranks_before);
    if (out.size() == count)
      bar = out.front().score;
  }
  std::sort(out.begin(), out.end(), ranks_before);
}

// The heaviest tokens, sorted, until they weigh `wanted_mass` or there are no more.
void token_selector::collect(std::span<const float> weights, float min_p, double wanted_mass) {
  for (const float floor : {1e-3F, 1e-5F, 1e-8F, 0.0F}) {
    const float bar = std::max(floor, min_p);
    candidates_.clear();
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (weights[i] >= bar && weights[i] > 0)
        candidates_.push_back({weights[i], static_cast<token_id>(i)});
    if (floor <= min_p || mass(candidates_) >= wanted_mass)
      break;
  }
  std::sort(candidates_.begin(), candidates_.end(), ranks_before);
}

token_id token_selector::draw_sorted(double top_p_mass, double uniform) const {
  // The smallest prefix that weighs top_p_mass, at least one token.
  double kept = 0;
  std::size_t n = 0;
  while (n < candidates_.size() && (n == 0 || kept < top_p_mass))
    kept += static_cast<double>(candidates_[n++].score);
  const double target = uniform * kept;
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sum += static_cast<double>(candidates_[i].score);
    if (sum > target)
      return candidates_[i].id;
  }
  return n == 0 ? -1 : candidates_[n - 1].id; // rounding: uniform is just below 1
}

token_id token_selector::draw(std::span<float> logits, const selection_limits& limits,
                              double uniform) {
  if (limits.temperature != 1.0F)
    for (float& l : logits) {
      const float scaled = l / limits.temperature;
      constexpr float most = std::numeric_limits<float>::max();
      l = l == forbidden ? forbidden : std::clamp(scaled, -most, most);
    }
  const auto best = argmax(logits);
  if (best < 0)
    return -1;
  const float highest = logits[static_cast<std::size_t>(best)];

  if (limits.top_k > 0 && static_cast<std::size_t>(limits.top_k) < logits.size()) {
    top(logits, static_cast<std::size_t>(limits.top_k), candidates_);
    for (auto& t : candidates_)
      t.score = exact_exp(t.score - highest);
    std::erase_if(candidates_, [&](const scored_token& t) { return t.score < limits.min_p; });
    return draw_sorted(static_cast<double>(limits.top_p) * mass(candidates_), uniform);
  }

  weights_.resize(logits.size());
  exact_exp_shifted(logits, highest, weights_);
  if (limits.top_p < 1.0F || limits.min_p > 0.0F) {
    if (limits.min_p > 0.0F)
      for (float& w : weights_)
        w = w < limits.min_p ? 0.0F : w;
    const double wanted = static_cast<double>(limits.top_p) * exact_sum(weights_);
    collect(weights_, limits.min_p, wanted);
    return draw_sorted(wanted, uniform);
  }

  // Unfiltered: runs are skipped by their sums, then one run is walked.
  constexpr std::size_t run = 512;
  const std::span<const float> weights = weights_;
  const auto part = [&](std::size_t begin) {
    return weights.subspan(begin, std::min(run, weights.size() - begin));
  };
  double total = 0;
  for (std::size_t begin = 0; begin < weights.size(); begin += run)
    total += exact_sum(part(begin));
  const double target = uniform * total;
  double sum = 0;
  token_id last = best; // the last token that could be drawn, should rounding pass the end
  for (std::size_t begin = 0; begin < weights.size(); begin += run) {
    const double here = exact_sum(part(begin));
    if (sum + here > target) {
      for (std::size_t i = begin; i < begin + part(begin).size(); ++i) {
        if (weights[i] <= 0)
          continue;
        last = static_cast<token_id>(i);
        sum += static_cast<double>(weights[i]);
        if (sum > target)
          return last;
      }
      return last;
    }
    sum += here;
  }
  return last;
}

} // namespace hexgen::compute
