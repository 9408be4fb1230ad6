#include "actors/data/serving_shape.hpp"

#include <algorithm>
#include <string_view>

namespace hexgen::actors {
namespace {

class fnv1a {
public:
  void add(std::string_view bytes) {
    for (const unsigned char c : bytes)
      hash_ = (hash_ ^ c) * 0x100000001b3ULL;
  }
  void add(std::int64_t n) {
    for (int i = 0; i < 8; ++i)
      hash_ = (hash_ ^ ((static_cast<std::uint64_t>(n) >> (8 * i)) & 0xff)) * 0x100000001b3ULL;
  }
  [[nodiscard]] std::uint64_t value() const { return hash_; }

private:
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

constexpr std::size_t sample_bytes = 256; // of each tensor, from its middle

} // namespace

scheduler::serving_model serving_shape(const compute::model_file& model,
                                       const compute::executor_options& options) {
  const auto& config = model.config();
  auto memory = [&](bool first, bool last) {
    auto part = compute::make_shards(config, 0, 1, {1.0}).front();
    part.first = first;
    part.last = last;
    if (!last)
      part.vocab_begin = part.vocab_end = 0;
    else
      part.vocab_end = config.vocab;
    return compute::cpu_executor_memory(model, part, options);
  };
  const auto plain = memory(false, false), first = memory(true, false), last = memory(false, true);
  scheduler::serving_model out;
  out.layers = config.layers;
  out.hidden = config.hidden;
  out.kv_heads = config.kv_heads;
  out.layer_bytes = plain.weight_bytes;
  out.embedding_bytes = first.weight_bytes - std::min(first.weight_bytes, plain.weight_bytes);
  out.head_bytes = last.weight_bytes - std::min(last.weight_bytes, plain.weight_bytes);
  out.kv_bytes_per_token_layer = plain.kv_block_bytes / compute::block_tokens;
  out.activation_bytes =
      std::max({plain.activation_bytes, first.activation_bytes, last.activation_bytes});
  return out;
}

std::string model_identity(const compute::model_file& model) {
  fnv1a hash;
  const auto& c = model.config();
  hash.add(c.architecture);
  for (const std::int64_t n : {c.layers, c.hidden, c.heads, c.kv_heads, c.head_dim, c.ffn, c.vocab})
    hash.add(n);
  for (const auto& t : model.tensors()) {
    hash.add(t.name);
    hash.add(static_cast<std::int64_t>(t.type));
    hash.add(t.rows);
    hash.add(t.columns);
    const auto take = std::min(sample_bytes, t.bytes.size());
    const auto middle = t.bytes.subspan((t.bytes.size() - take) / 2, take);
    hash.add({reinterpret_cast<const char*>(middle.data()), middle.size()});
  }
  static constexpr char digits[] = "0123456789abcdef";
  std::string out(16, '0');
  for (int i = 0; i < 16; ++i)
    out[static_cast<std::size_t>(i)] = digits[(hash.value() >> (60 - 4 * i)) & 15];
  return out;
}

} // namespace hexgen::actors
