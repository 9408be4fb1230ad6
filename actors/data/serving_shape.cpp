#include "actors/data/serving_shape.hpp"

#include <algorithm>

namespace hexgen::actors {

scheduler::serving_sizes
sizes_of(const compute::model_config& config,
         const std::function<compute::executor_memory(const compute::shard&)>& memory_of) {
  auto memory = [&](bool first, bool last) {
    auto part = compute::make_shards(config, 0, 1, {1.0}).front();
    part.first = first;
    part.last = last;
    if (!last)
      part.vocab_begin = part.vocab_end = 0;
    else
      part.vocab_end = config.vocab;
    return memory_of(part);
  };
  const auto plain = memory(false, false), first = memory(true, false), last = memory(false, true);
  scheduler::serving_sizes out;
  out.layer_bytes = plain.weight_bytes;
  out.embedding_bytes = first.weight_bytes - std::min(first.weight_bytes, plain.weight_bytes);
  out.head_bytes = last.weight_bytes - std::min(last.weight_bytes, plain.weight_bytes);
  out.kv_bytes_per_token_layer = plain.kv_block_bytes / compute::block_tokens;
  out.activation_bytes =
      std::max({plain.activation_bytes, first.activation_bytes, last.activation_bytes});
  return out;
}

scheduler::serving_model serving_shape(const compute::model_file& model,
                                       const compute::executor_options& options) {
  const auto& config = model.config();
  scheduler::serving_model out;
  static_cast<scheduler::serving_sizes&>(out) = sizes_of(config, [&](const compute::shard& part) {
    return compute::cpu_executor_memory(model, part, options);
  });
  out.layers = config.layers;
  out.hidden = config.hidden;
  out.kv_heads = config.kv_heads;
  return out;
}

} // namespace hexgen::actors
