// The sizes of a decoder-only model, as far as planning needs them.
#pragma once

#include <string>

namespace hexgen::config {

struct model_shape {
  std::string name, architecture;
  int layers = 0, hidden = 0, heads = 0, kv_heads = 0, ffn = 0, vocab = 0;
  double bytes_per_parameter = 2;
  double bytes_per_kv_value = 2;
  bool tied_embedding = false;

  /// Query, key, value and output projections, gated FFN: weights of one true layer.
  [[nodiscard]] double layer_parameters() const;
  [[nodiscard]] double embedding_parameters() const;
  [[nodiscard]] int head_dimension() const { return hidden / heads; }
  /// Bytes of keys and values that one token leaves in one layer.
  [[nodiscard]] double kv_bytes_per_token_layer() const;
};

/// Throws config_error naming file, line and key.
[[nodiscard]] model_shape read_model_shape(const std::string& path);
[[nodiscard]] model_shape parse_model_shape(const std::string& file, const std::string& text);

} // namespace hexgen::config
