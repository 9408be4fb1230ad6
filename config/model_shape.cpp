#include "config/model_shape.hpp"

#include "config/yaml_reader.hpp"

namespace hexgen::config {

double model_shape::layer_parameters() const {
  const double kv_width = static_cast<double>(kv_heads) * head_dimension();
  return 2.0 * hidden * hidden + 2.0 * hidden * kv_width + 3.0 * hidden * ffn;
}

double model_shape::embedding_parameters() const {
  return static_cast<double>(vocab) * hidden;
}

double model_shape::kv_bytes_per_token_layer() const {
  return 2.0 * kv_heads * head_dimension() * bytes_per_kv_value;
}

model_shape parse_model_shape(const std::string& file, const std::string& text) {
  auto top = yaml_reader::parse(file, text);
  model_shape shape;
  shape.name = top.text("name");
  shape.architecture = top.text("architecture", "llama");
  const auto count = [&](const char* key, std::int64_t most) {
    return static_cast<int>(top.integer(key, 1, most));
  };
  shape.layers = count("layers", 1024);
  shape.hidden = count("hidden", 1 << 20);
  shape.heads = count("heads", 1 << 14);
  shape.kv_heads = static_cast<int>(top.integer("kv_heads", 1, 1 << 14, shape.heads));
  shape.ffn = count("ffn", 1 << 24);
  shape.vocab = count("vocab", 1 << 24);
  shape.bytes_per_parameter = top.number("bytes_per_parameter", 0.1, 8, 2);
  shape.bytes_per_kv_value = top.number("bytes_per_kv_value", 0.1, 8, 2);
  shape.tied_embedding = top.flag("tied_embedding", false);
  if (shape.hidden % shape.heads != 0)
    top.fail("heads", "must divide hidden");
  if (shape.heads % shape.kv_heads != 0)
    top.fail("kv_heads", "must divide heads");
  top.refuse_other_keys();
  return shape;
}

model_shape read_model_shape(const std::string& path) {
  return parse_model_shape(path, read_config_text(path));
}

} // namespace hexgen::config
