#include "compute/files/stored_model.hpp"

#include <cmath>
#include <unordered_map>
#include <unordered_set>

namespace hexgen::compute {

namespace {

class stored_model final : public model_file {
public:
  stored_model(model_config config, std::vector<tensor_view> tensors,
               std::shared_ptr<const void> owner)
      : config_(std::move(config)), tensors_(std::move(tensors)), owner_(std::move(owner)) {
    for (const auto& tensor : tensors_) {
      index_.emplace(tensor.name, &tensor);
      total_bytes_ += tensor.bytes.size();
    }
  }

  const model_config& config() const override { return config_; }
  const tensor_view* find(std::string_view name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : it->second;
  }
  std::span<const tensor_view> tensors() const override { return tensors_; }
  std::uint64_t total_bytes() const override { return total_bytes_; }

private:
  model_config config_;
  std::vector<tensor_view> tensors_;
  std::shared_ptr<const void> owner_;
  std::unordered_map<std::string_view, const tensor_view*> index_;
  std::uint64_t total_bytes_ = 0;
};

bool is_float(tensor_type type) {
  return type == tensor_type::f32 || type == tensor_type::f16 || type == tensor_type::bf16;
}

std::string shape(std::int64_t rows, std::int64_t columns) {
  return std::to_string(rows) + " x " + std::to_string(columns);
}

void check_range(const std::string& file, const char* field, double value, double low,
                 double high) {
  if (!(value >= low && value <= high)) // also NaN
    throw file_error(file + ": " + field + ": " + std::to_string(value) + " lies outside [" +
                     std::to_string(low) + ", " + std::to_string(high) + "]");
}

} // namespace

std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, 80))
    out += c >= 0x20 && c < 0x7f ? c : '?';
  return out + (text.size() > 80 ? "...'" : "'");
}

std::vector<expected_tensor> expected_tensors(const model_config& config) {
  std::vector<expected_tensor> out;
  out.push_back({"token_embd.weight", config.vocab, config.hidden, tensor_role::embedding});
  for (int layer = 0; layer < config.layers; ++layer) {
    const auto add = [&](const char* name, std::int64_t rows, std::int64_t columns,
                         tensor_role role) {
      out.push_back({"blk." + std::to_string(layer) + "." + name, rows, columns, role});
    };
    add("attn_norm.weight", 1, config.hidden, tensor_role::norm);
    add("attn_q.weight", config.q_width(), config.hidden, tensor_role::matrix);
    add("attn_k.weight", config.kv_width(), config.hidden, tensor_role::matrix);
    add("attn_v.weight", config.kv_width(), config.hidden, tensor_role::matrix);
    if (config.qkv_bias) {
      add("attn_q.bias", 1, config.q_width(), tensor_role::bias);
      add("attn_k.bias", 1, config.kv_width(), tensor_role::bias);
      add("attn_v.bias", 1, config.kv_width(), tensor_role::bias);
    }
    if (config.qk_norm) {
      add("attn_q_norm.weight", 1, config.head_dim, tensor_role::norm);
      add("attn_k_norm.weight", 1, config.head_dim, tensor_role::norm);
    }
    add("attn_output.weight", config.hidden, config.q_width(), tensor_role::matrix);
    add("ffn_norm.weight", 1, config.hidden, tensor_role::norm);
    add("ffn_gate.weight", config.ffn, config.hidden, tensor_role::matrix);
    add("ffn_up.weight", config.ffn, config.hidden, tensor_role::matrix);
    add("ffn_down.weight", config.hidden, config.ffn, tensor_role::matrix);
  }
  out.push_back({"output_norm.weight", 1, config.hidden, tensor_role::norm});
  if (!config.tied_head)
    out.push_back({"output.weight", config.vocab, config.hidden, tensor_role::matrix});
  return out;
}

void check_config(const model_config& config, const std::string& file) {
  check_range(file, "layers", config.layers, 1, 4096);
  check_range(file, "hidden size", config.hidden, 1, 1 << 20);
  check_range(file, "attention heads", config.heads, 1, 1 << 14);
  check_range(file, "KV heads", config.kv_heads, 1, config.heads);
  check_range(file, "head dimension", config.head_dim, 2, 1 << 12);
  check_range(file, "FFN size", config.ffn, 1, 1 << 22);
  check_range(file, "vocabulary", config.vocab, 1, 1 << 24);
  check_range(file, "context length", config.context, 1, 1 << 30);
  check_range(file, "RMS norm epsilon", config.norm_epsilon, 0, 1);
  check_range(file, "RoPE theta", config.rope_theta, 1, 1e12);
  check_range(file, "RoPE factor", config.rope_factor, 1e-3, 1e6);
  if (config.heads % config.kv_heads != 0)
    throw file_error(file + ": " + std::to_string(config.heads) +
                     " attention heads are not a multiple of " + std::to_string(config.kv_heads) +
                     " KV heads");
  if (config.head_dim % 2 != 0)
    throw file_error(file + ": head dimension: " + std::to_string(config.head_dim) + " is odd");
  if (config.scaling == rope_scaling::llama3 || config.scaling == rope_scaling::yarn)
    check_range(file, "RoPE original context", config.rope_original_context, 1, 1 << 30);
  if (config.scaling == rope_scaling::llama3) {
    check_range(file, "RoPE low frequency factor", config.rope_low_frequency_factor, 1e-3, 1e6);
    check_range(file, "RoPE high frequency factor", config.rope_high_frequency_factor, 1e-3, 1e6);
    if (config.rope_high_frequency_factor <= config.rope_low_frequency_factor)
      throw file_error(file + ": RoPE high frequency factor: not above the low one");
  }
  const auto& factors = config.rope_frequency_factors;
  if (!factors.empty() && factors.size() != static_cast<std::size_t>(config.head_dim / 2))
    throw file_error(file + ": RoPE frequency factors: " + std::to_string(factors.size()) +
                     ", want " + std::to_string(config.head_dim / 2));
  for (const float factor : factors)
    check_range(file, "RoPE frequency factor", factor, 1e-3, 1e6);
}

std::shared_ptr<const model_file> make_stored_model(const std::string& file, model_config config,
                                                    std::vector<tensor_view> tensors,
                                                    std::shared_ptr<const void> owner) {
  check_config(config, file);
  // A file of few tensors cannot make us list millions: each layer has at least nine.
  if (static_cast<std::size_t>(config.layers) * 9 > tensors.size())
    throw file_error(file + ": layers: " + std::to_string(config.layers) + " with only " +
                     std::to_string(tensors.size()) + " tensors");
  auto model =
      std::make_shared<stored_model>(std::move(config), std::move(tensors), std::move(owner));
  std::unordered_set<std::string_view> wanted;
  const auto expected = expected_tensors(model->config());
  for (const auto& want : expected) {
    const auto* have = model->find(want.name);
    if (have == nullptr)
      throw file_error(file + ": tensor '" + want.name + "': missing");
    if (have->rows != want.rows || have->columns != want.columns)
      throw file_error(file + ": tensor '" + want.name + "': is " +
                       shape(have->rows, have->columns) + ", want " +
                       shape(want.rows, want.columns));
    if ((want.role == tensor_role::norm || want.role == tensor_role::bias) && !is_float(have->type))
      throw file_error(file + ": tensor '" + want.name + "': " + to_string(have->type) +
                       " where floats are needed");
    wanted.insert(want.name);
  }
  for (const auto& have : model->tensors())
    if (!wanted.contains(have.name))
      throw file_error(file + ": tensor " + in_quotes(have.name) + ": not part of a model of the " +
                       model->config().architecture + " architecture");
  return model;
}

} // namespace hexgen::compute
