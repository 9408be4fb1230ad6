#include "compute/shard.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace hexgen::compute {

namespace {

/// Cuts `units` into one run per speed, in proportion, each at least `least`: the largest
/// remainders get what rounding down leaves over, so the cuts are a pure function of the ratios.
std::vector<int> cuts_by_speed(int units, const std::vector<double>& speeds, int least) {
  const auto ranks = speeds.size();
  const double total = std::accumulate(speeds.begin(), speeds.end(), 0.0);
  const int spare = units - least * static_cast<int>(ranks);
  std::vector<int> share(ranks, least);
  std::vector<double> want(ranks);
  for (std::size_t r = 0; r < ranks; ++r)
    want[r] = static_cast<double>(units) * (speeds[r] / total);
  for (int i = 0; i < spare; ++i) { // each unit to the rank that lacks most
    std::size_t best = 0;
    for (std::size_t r = 1; r < ranks; ++r)
      if (want[r] - share[r] > want[best] - share[best])
        best = r;
    ++share[best];
  }
  std::vector<int> cuts(ranks + 1, 0);
  for (std::size_t r = 0; r < ranks; ++r)
    cuts[r + 1] = cuts[r] + share[r];
  return cuts;
}

} // namespace

std::vector<int> ffn_leaf_cuts(const model_config& config) {
  const int unit = config.ffn < 2048 ? 32 : 256;
  const int leaves = std::max(1, std::min(16, config.ffn / 256));
  const int units = config.ffn / unit;
  std::vector<int> cuts(static_cast<std::size_t>(leaves) + 1, 0);
  for (int i = 0; i < leaves; ++i) {
    const int extra = i < units % leaves ? 1 : 0;
    cuts[i + 1] = cuts[i] + (units / leaves + extra) * unit;
  }
  cuts.back() = config.ffn;
  return cuts;
}

std::vector<shard> make_shards(const model_config& config, int first_layer, int layers,
                               const std::vector<double>& speeds) {
  if (first_layer < 0 || layers < 1 || first_layer > config.layers - layers)
    throw std::invalid_argument("make_shards: layers out of the model's range");
  if (speeds.empty() || static_cast<std::int64_t>(speeds.size()) > config.kv_heads)
    throw std::invalid_argument("make_shards: a stage has between one rank and one per KV head");
  if (!std::all_of(speeds.begin(), speeds.end(),
                   [](double s) { return s > 0 && std::isfinite(s); }))
    throw std::invalid_argument("make_shards: every speed must be a positive number");

  const auto heads = cuts_by_speed(config.kv_heads, speeds, 1);
  const auto leaves = cuts_by_speed(static_cast<int>(ffn_leaf_cuts(config).size()) - 1, speeds, 0);
  constexpr int vocab_unit = 32;
  const auto rows = cuts_by_speed((config.vocab + vocab_unit - 1) / vocab_unit, speeds, 0);

  std::vector<shard> out(speeds.size());
  for (std::size_t r = 0; r < out.size(); ++r) {
    auto& s = out[r];
    s.first_layer = first_layer;
    s.layers = layers;
    s.first = first_layer == 0;
    s.last = first_layer + layers == config.layers;
    s.rank = static_cast<int>(r);
    s.degree = static_cast<int>(speeds.size());
    s.kv_head_begin = heads[r];
    s.kv_head_end = heads[r + 1];
    s.ffn_leaf_begin = leaves[r];
    s.ffn_leaf_end = leaves[r + 1];
    s.vocab_begin = std::min(config.vocab, rows[r] * vocab_unit);
    s.vocab_end = std::min(config.vocab, rows[r + 1] * vocab_unit);
  }
  return out;
}

} // namespace hexgen::compute
