#include "compute/files/gguf_model.hpp"

#include "compute/files/stored_model.hpp"

#include <algorithm>
#include <cmath>

namespace hexgen::compute {

namespace {

constexpr std::int64_t int_limit = std::numeric_limits<std::int32_t>::max();

class config_reader {
public:
  explicit config_reader(const gguf_file& file) : file_(file) {}

  model_config read() {
    config_.architecture = file_.at("general.architecture").as_string();
    if (config_.architecture != "llama" && config_.architecture != "mistral" &&
        config_.architecture != "qwen2" && config_.architecture != "qwen3")
      fail("general.architecture",
           in_quotes(config_.architecture) + " is none of llama, mistral, qwen2, qwen3");
    const auto* name = file_.find("general.name");
    config_.name = name != nullptr ? std::string(name->as_string()) : config_.architecture;
    // Converters permute the query and key rows of these two so that rotary pairs are neighbours.
    config_.rope_interleaved = config_.architecture == "llama" || config_.architecture == "mistral";
    read_sizes();
    read_rope();
    read_tensor_facts();
    return config_;
  }

private:
  [[noreturn]] void fail(const std::string& key, const std::string& problem) const {
    throw file_error(file_.name() + ": " + key + ": " + problem);
  }

  [[nodiscard]] std::string key(const char* suffix) const {
    return config_.architecture + "." + suffix;
  }

  /// A positive integer; also an array that repeats one (some writers give a value a layer).
  [[nodiscard]] int integer_of(const gguf_value& value) const {
    if (!value.is_array())
      return static_cast<int>(value.as_integer(1, int_limit));
    const auto all = value.as_integers();
    if (all.empty() || all.front() < 1 ||
        std::any_of(all.begin(), all.end(), [&](int other) { return other != all.front(); }))
      fail(std::string(value.key()), "layers of different sizes are not supported");
    return all.front();
  }

  [[nodiscard]] int integer(const char* suffix) const { return integer_of(file_.at(key(suffix))); }

  [[nodiscard]] int integer_or(const char* suffix, int otherwise) const {
    const auto* value = file_.find(key(suffix));
    return value != nullptr ? integer_of(*value) : otherwise;
  }

  [[nodiscard]] double number_or(const char* suffix, double otherwise) const {
    const auto* value = file_.find(key(suffix));
    return value != nullptr ? value->as_number() : otherwise;
  }

  void read_sizes() {
    config_.layers = integer("block_count");
    config_.hidden = integer("embedding_length");
    config_.ffn = integer("feed_forward_length");
    config_.heads = integer("attention.head_count");
    config_.kv_heads = integer_or("attention.head_count_kv", config_.heads);
    config_.context = integer("context_length");
    config_.norm_epsilon =
        static_cast<float>(file_.at(key("attention.layer_norm_rms_epsilon")).as_number());
    config_.head_dim = integer_or("attention.key_length", config_.hidden / config_.heads);
    if (integer_or("attention.value_length", config_.head_dim) != config_.head_dim)
      fail(key("attention.value_length"), "differs from the key length");
    if (const auto* experts = file_.find(key("expert_count")))
      if (experts->as_integer() != 0)
        fail(key("expert_count"), "mixtures of experts are not supported");
    // Within the window a sliding attention sees what a full one sees.
    config_.context =
        std::min(config_.context, integer_or("attention.sliding_window", config_.context));
  }

  void read_rope() {
    config_.rope_theta = number_or("rope.freq_base", 10000.0);
    if (integer_or("rope.dimension_count", config_.head_dim) != config_.head_dim)
      fail(key("rope.dimension_count"), "rotating a part of each head is not supported");
    const auto* type = file_.find(key("rope.scaling.type"));
    const auto name = type != nullptr ? type->as_string() : "none";
    if (name == "linear" || file_.find(key("rope.scale_linear")) != nullptr) {
      config_.scaling = rope_scaling::linear;
      config_.rope_factor = number_or("rope.scaling.factor", number_or("rope.scale_linear", 1.0));
    } else if (name == "yarn") {
      config_.scaling = rope_scaling::yarn;
      config_.rope_factor = file_.at(key("rope.scaling.factor")).as_number();
      config_.rope_original_context = integer("rope.scaling.original_context_length");
      want_default("rope.scaling.yarn_beta_fast", 32);
      want_default("rope.scaling.yarn_beta_slow", 1);
      want_default("rope.scaling.yarn_ext_factor", 1);
      want_default("rope.scaling.attn_factor", 1);
      want_default("rope.scaling.yarn_attn_factor", 1);
      want_default("rope.scaling.yarn_log_multiplier", 0);
    } else if (name != "none") {
      fail(key("rope.scaling.type"), in_quotes(name) + " is not supported");
    }
  }

  void want_default(const char* suffix, double value) const {
    if (number_or(suffix, value) != value)
      fail(key(suffix), "values other than " + std::to_string(value) + " are not supported");
  }

  /// What only the tensors say.
  void read_tensor_facts() {
    config_.tied_head = true;
    for (const auto& tensor : file_.tensors()) {
      if (tensor.name == "output.weight")
        config_.tied_head = false;
      else if (tensor.name == "blk.0.attn_q.bias")
        config_.qkv_bias = true;
      else if (tensor.name == "blk.0.attn_q_norm.weight")
        config_.qk_norm = true;
      else if (tensor.name == "token_embd.weight")
        config_.vocab = static_cast<int>(tensor.rows);
      else if (tensor.name == "rope_freqs.weight")
        read_frequency_factors(tensor);
    }
  }

  void read_frequency_factors(const tensor_view& tensor) {
    if (tensor.type != tensor_type::f32 || tensor.rows != 1 ||
        tensor.columns != config_.head_dim / 2)
      fail("tensor 'rope_freqs.weight'",
           "want " + std::to_string(config_.head_dim / 2) + " values of F32");
    config_.rope_frequency_factors.resize(static_cast<std::size_t>(tensor.columns));
    dequantize_row(tensor.type, tensor.bytes.data(), tensor.columns,
                   config_.rope_frequency_factors.data());
  }

  const gguf_file& file_;
  model_config config_;
};

} // namespace

std::shared_ptr<const model_file> open_gguf_model(std::shared_ptr<const gguf_file> file) {
  auto config = config_reader(*file).read();
  std::vector<tensor_view> tensors;
  for (const auto& tensor : file->tensors())
    if (tensor.name != "rope_freqs.weight") // part of the configuration
      tensors.push_back(tensor);
  return make_stored_model(file->name(), std::move(config), std::move(tensors), file);
}

} // namespace hexgen::compute
