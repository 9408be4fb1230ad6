#include "compute/model_digest.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hexgen::compute {

namespace {

/// Fields of fixed width and texts with their length, so that no two messages read alike.
class field_hash {
public:
  void add(std::uint64_t value) { hash_.update(std::as_bytes(std::span(&value, 1))); }
  void add(int value) { add(static_cast<std::uint64_t>(value)); }
  void add(double value) { add(std::bit_cast<std::uint64_t>(value)); }
  void add(std::string_view text) {
    add(static_cast<std::uint64_t>(text.size()));
    hash_.update(std::as_bytes(std::span(text)));
  }
  void add(std::span<const std::byte> bytes) {
    add(static_cast<std::uint64_t>(bytes.size()));
    hash_.update(bytes);
  }
  digest finish() { return hash_.finish(); }

private:
  blake2b hash_;
};

void add_table_entry(field_hash& hash, const tensor_view& tensor) {
  hash.add(std::string_view(to_string(tensor.type)));
  hash.add(static_cast<std::uint64_t>(tensor.rows));
  hash.add(static_cast<std::uint64_t>(tensor.columns));
}

void add_config(field_hash& hash, const model_config& config) {
  hash.add(std::string_view(config.architecture));
  for (const int size : {config.layers, config.hidden, config.heads, config.kv_heads,
                         config.head_dim, config.ffn, config.vocab, config.context})
    hash.add(size);
  for (const bool fact :
       {config.tied_head, config.qkv_bias, config.qk_norm, config.rope_interleaved})
    hash.add(static_cast<int>(fact));
  hash.add(static_cast<double>(config.norm_epsilon));
  hash.add(config.rope_theta);
  hash.add(static_cast<int>(config.scaling));
  for (const double factor :
       {config.rope_factor, config.rope_low_frequency_factor, config.rope_high_frequency_factor})
    hash.add(factor);
  hash.add(config.rope_original_context);
  hash.add(std::as_bytes(std::span(config.rope_frequency_factors)));
}

} // namespace

digest model_digest(const model_file& model) {
  field_hash hash;
  add_config(hash, model.config());
  std::vector<const tensor_view*> order;
  for (const auto& tensor : model.tensors())
    order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](auto a, auto b) { return a->name < b->name; });
  for (const auto* tensor : order) {
    hash.add(tensor->name);
    add_table_entry(hash, *tensor);
    hash.add(tensor->bytes.first(std::min(digest_sample_bytes, tensor->bytes.size())));
  }
  return hash.finish();
}

digest tensor_digest(const tensor_view& tensor) {
  field_hash hash;
  add_table_entry(hash, tensor);
  hash.add(tensor.bytes);
  return hash.finish();
}

} // namespace hexgen::compute
