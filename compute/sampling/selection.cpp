#include "compute/sampling/selection.hpp"

#include "compute/sampler.hpp"
#include "compute/sampling/exact_math.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace hexgen::compute {

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();

constexpr std::size_t run = 512; // weights that are summed at once

// `weight` (0 to 1) to a multiple of 2^-32: that is the last bit of doubles around 2^20.
inline double rounded(float weight) {
  return (static_cast<double>(weight) + 0x1p20) - 0x1p20;
}

double sum_of(const float* weights, std::size_t n) {
  double sum = 0;
  std::array<double, 16> lanes{};
  const auto whole = n / lanes.size() * lanes.size();
  for (std::size_t i = 0; i < whole; i += lanes.size())
    for (std::size_t j = 0; j < lanes.size(); ++j)
      lanes[j] += rounded(weights[i + j]);
  for (const double lane : lanes)
    sum += lane;
  for (std::size_t i = whole; i < n; ++i)
    sum += rounded(weights[i]);
  return sum;
}

// Positive floats are in the order of their bits: 65,536 mantissas share a bucket.
inline std::size_t bucket_of(float weight) {
  return std::bit_cast<std::uint32_t>(weight) >> 16U;
}
constexpr std::size_t buckets = (0x3F800000U >> 16U) + 1; // up to 1.0

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
                         std::vector<scored_token>& out) {
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

token_id token_selector::draw_from_top(std::span<const float> logits, float highest,
                                       const selection_limits& limits, double uniform) {
  top(logits, static_cast<std::size_t>(limits.top_k), candidates_);
  double total = 0;
  for (auto& t : candidates_) {
    const float weight = exact_exp(t.score - highest);
    t.score = weight < limits.min_p ? 0.0F : weight;
    total += rounded(t.score);
  }
  // The smallest prefix that weighs enough, at least one token.
  const double wanted = static_cast<double>(limits.top_p) * total;
  double kept = 0;
  std::size_t n = 0;
  while (n < candidates_.size() && (n == 0 || kept < wanted))
    kept += rounded(candidates_[n++].score);
  const double target = uniform * kept;
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sum += rounded(candidates_[i].score);
    if (sum > target)
      return candidates_[i].id;
  }
  return candidates_.front().id;
}

// Leaves the smallest set of heaviest tokens (lower ids first among equals) that weighs `top_p` of
// all. A histogram finds where the cut lies; only the tokens of that bucket are sorted.
void token_selector::keep_top_p(float top_p) {
  bucket_sums_.assign(buckets, 0.0);
  double total = 0;
  for (const float w : weights_)
    if (const double r = rounded(w); r > 0) {
      bucket_sums_[bucket_of(w)] += r;
      total += r;
    }
  const double wanted = static_cast<double>(top_p) * total;
  std::size_t cut = buckets - 1;
  double above = 0;
  while (cut > 0 && above + bucket_sums_[cut] < wanted)
    above += bucket_sums_[cut--];
  candidates_.clear();
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    const auto b = bucket_of(weights_[i]);
    if (b == cut)
      candidates_.push_back({weights_[i], static_cast<token_id>(i)});
    if (b <= cut)
      weights_[i] = 0;
  }
  std::sort(candidates_.begin(), candidates_.end(), ranks_before);
  for (std::size_t i = 0; i < candidates_.size() && (above < wanted || above == 0); ++i) {
    weights_[static_cast<std::size_t>(candidates_[i].id)] = candidates_[i].score;
    above += rounded(candidates_[i].score);
  }
}

// In the order of ids: whole runs are skipped by their sums, then one run is walked.
token_id token_selector::draw_weighted(double uniform) {
  sums_.clear();
  double total = 0;
  for (std::size_t begin = 0; begin < weights_.size(); begin += run) {
    sums_.push_back(sum_of(weights_.data() + begin, std::min(run, weights_.size() - begin)));
    total += sums_.back();
  }
  const double target = uniform * total;
  double sum = 0;
  std::size_t at = 0;
  while (at + 1 < sums_.size() && sum + sums_[at] <= target)
    sum += sums_[at++];
  for (std::size_t i = at * run; i < weights_.size(); ++i) {
    sum += rounded(weights_[i]);
    if (sum > target)
      return static_cast<token_id>(i);
  }
  return -1; // not reached: the sums are exact and the target is below their total
}

token_id token_selector::draw(std::span<float> logits, const selection_limits& limits,
                              double uniform) {
  if (limits.temperature != 1.0F)
    for (float& l : logits) {
      // Finite stays finite. Spelt out, for std::clamp would keep this loop from vectorising.
      constexpr float most = std::numeric_limits<float>::max();
      float scaled = l / limits.temperature;
      scaled = scaled > most ? most : scaled;
      scaled = scaled < -most ? -most : scaled;
      l = l == forbidden ? forbidden : scaled;
    }
  const auto best = argmax(logits);
  if (best < 0)
    return -1;
  const float highest = logits[static_cast<std::size_t>(best)];
  if (limits.top_k > 0 && static_cast<std::size_t>(limits.top_k) < logits.size())
    return draw_from_top(logits, highest, limits, uniform);

  weights_.resize(logits.size());
  exact_exp_shifted(logits, highest, weights_);
  if (limits.min_p > 0.0F)
    for (float& w : weights_)
      w = w < limits.min_p ? 0.0F : w;
  if (limits.top_p < 1.0F)
    keep_top_p(limits.top_p);
  return draw_weighted(uniform);
}

} // namespace hexgen::compute
