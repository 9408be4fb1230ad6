#include "compute/cpu/activations.hpp"

#include <algorithm>

namespace hexgen::compute {

activations::activations(const model_config& config, const shard& part,
                         const executor_options& options, arena& memory) {
  const auto cuts = ffn_leaf_cuts(config);
  const int kv_heads = part.kv_head_end - part.kv_head_begin;
  query_width = kv_heads * config.group() * config.head_dim;
  qkv_width = query_width + 2 * kv_heads * config.head_dim;
  ffn_width = cuts[static_cast<std::size_t>(part.ffn_leaf_end)] -
              cuts[static_cast<std::size_t>(part.ffn_leaf_begin)];
  sum_planes = part.degree == 1 ? 1 : std::max(config.kv_heads, static_cast<int>(cuts.size()) - 1);

  const auto tokens = static_cast<std::size_t>(options.max_step_tokens);
  const auto rows = static_cast<std::size_t>(part.last ? options.max_logit_rows : 0);
  const auto take = [&](std::size_t count, int width) {
    return memory.take_array<float>(count * static_cast<std::size_t>(width));
  };
  normed = take(tokens, config.hidden);
  qkv = take(tokens, qkv_width);
  attended = take(tokens, query_width);
  gate_up = take(tokens, 2 * ffn_width);
  sums = take(tokens * static_cast<std::size_t>(sum_planes), config.hidden);
  angles = take(tokens, config.head_dim);
  logit_rows = take(rows, config.hidden);
  logits = part.degree == 1 ? nullptr : take(rows, config.vocab);

  const bool fast = options.kernels == kernel_kind::fast;
  const int widest = std::max({config.hidden, query_width, ffn_width});
  const auto blocks = static_cast<std::size_t>((widest + block_columns - 1) / block_columns);
  const std::size_t tiles = (std::max(tokens, rows) + tile_tokens - 1) / tile_tokens;
  const std::size_t quantised_rows = fast ? tiles * tile_tokens : 0;
  codes = memory.take(quantised_rows * blocks * block_code_bytes);
  meta = memory.take_array<block_meta>(quantised_rows * blocks);
}

} // namespace hexgen::compute
