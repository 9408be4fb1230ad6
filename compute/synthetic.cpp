#include "compute/synthetic.hpp"

#include "compute/files/quantize.hpp"
#include "compute/files/stored_model.hpp"

#include <cmath>

namespace hexgen::compute {

namespace {

/// SplitMix64.
class random_floats {
public:
  explicit random_floats(std::uint64_t seed) : state_(seed) {}

  /// Uniform in (-1, 1), in steps of 2^-24.
  float next() {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    const auto bits = static_cast<std::int32_t>(z >> 39); // 25 bits
    return static_cast<float>(bits - (1 << 24)) * 0x1p-24F;
  }

private:
  std::uint64_t state_;
};

struct synthetic_storage {
  std::vector<expected_tensor> tensors; // the views' names
  std::vector<std::unique_ptr<std::byte[]>> bytes;
};

/// The affine map from (-1, 1) that a tensor's values get.
struct value_range {
  float centre = 0;
  float reach = 0;
};

value_range range_of(const expected_tensor& tensor) {
  // A uniform value in (-1, 1) has variance 1/3.
  const auto unit = std::sqrt(3.0F / static_cast<float>(tensor.columns));
  switch (tensor.role) {
  case tensor_role::norm:
    return {1.0F, 0.2F};
  case tensor_role::bias:
    return {0.0F, 0.2F};
  case tensor_role::embedding: // also the head when tied: logits get a deviation of about 4
    return {0.0F, 4 * unit};
  case tensor_role::matrix:
    break;
  }
  return {0.0F, tensor.name == "output.weight" ? 4 * unit : unit};
}

} // namespace

model_config tiny_config(std::string_view architecture) {
  model_config config;
  config.name = "tiny-" + std::string(architecture);
  config.architecture = architecture;
  config.layers = 2;
  config.hidden = 128;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.ffn = 256;
  config.vocab = 320;
  config.context = 512;
  if (architecture == "llama") {
    config.rope_interleaved = true;
  } else if (architecture == "qwen2") {
    config.qkv_bias = true;
    config.tied_head = true;
    config.norm_epsilon = 1e-6F;
    config.rope_theta = 1e6;
  } else if (architecture == "qwen3") {
    config.qk_norm = true;
    config.tied_head = true;
    config.norm_epsilon = 1e-6F;
    config.rope_theta = 1e6;
  } else if (architecture != "mistral") {
    throw std::invalid_argument("no family of models is called " + std::string(architecture));
  }
  return config;
}

std::shared_ptr<const model_file> make_synthetic_model(const model_config& config,
                                                       tensor_type matrices, std::uint64_t seed) {
  check_config(config, "synthetic model");
  auto storage = std::make_shared<synthetic_storage>();
  storage->tensors = expected_tensors(config);
  std::vector<tensor_view> views;
  std::vector<float> row;
  for (const auto& tensor : storage->tensors) {
    const bool vector = tensor.role == tensor_role::norm || tensor.role == tensor_role::bias;
    const auto type = vector ? tensor_type::f32 : matrices;
    const auto stride = row_bytes(type, tensor.columns);
    const auto size = stride * static_cast<std::size_t>(tensor.rows);
    auto& bytes = storage->bytes.emplace_back(new std::byte[size]);
    const auto range = range_of(tensor);
    random_floats random(seed * 0x2545f4914f6cdd1dU + storage->bytes.size());
    row.resize(static_cast<std::size_t>(tensor.columns));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      for (auto& value : row)
        value = range.centre + range.reach * random.next();
      quantize_row(type, row.data(), tensor.columns,
                   bytes.get() + static_cast<std::size_t>(r) * stride);
    }
    views.push_back({tensor.name, type, tensor.rows, tensor.columns, {bytes.get(), size}});
  }
  return make_stored_model("synthetic model", config, std::move(views), std::move(storage));
}

} // namespace hexgen::compute
