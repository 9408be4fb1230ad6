// A shard's weights on the GPU, laid out for the products that read them.
#pragma once

#include "compute/cuda/device_buffer.hpp"
#include "compute/cuda/weight_matrix.hpp"
#include "compute/cuda_backend.hpp"
#include "compute/model_file.hpp"
#include "compute/shard.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace hexgen::compute::cuda {

struct layer_weights {
  weight_matrix qkv;               // [(heads + 2 kv_heads) head_dim, hidden], this rank's heads
  weight_matrix output;            // [hidden, heads head_dim]
  weight_matrix gate_up;           // [2 ffn, hidden], gate and up rows in turn
  weight_matrix down;              // [hidden, ffn]
  float* attention_norm = nullptr; // [hidden]
  float* ffn_norm = nullptr;       // [hidden]
  float* qkv_bias = nullptr;       // [(heads + 2 kv_heads) head_dim] or nullptr
  float* q_norm = nullptr;         // [head_dim] or nullptr
  float* k_norm = nullptr;
};

/// A rank's widths.
struct local_shape {
  int heads = 0, kv_heads = 0, ffn = 0, vocab = 0;
  int ffn_begin = 0; // first row of gate and up
  [[nodiscard]] static local_shape of(const model_config& config, const shard& part);
};

/// Where the values come from: a file, or the device's own random numbers (shapes alone count).
struct weight_source {
  const model_file* file = nullptr; // nullptr: random
  gpu_weights type = gpu_weights::bf16;
  std::uint64_t seed = 1;
  std::function<void(std::uint64_t, std::uint64_t)> progress;
};

class device_weights {
public:
  /// Loads through two pinned buffers: one is filled while the other travels. Throws file_error,
  /// cuda_error.
  device_weights(const model_config& config, const shard& part, const weight_source& source,
                 cudaStream_t stream);
  [[nodiscard]] const std::vector<layer_weights>& layers() const { return layers_; }
  /// bf16; the first stage's leader has it.
  [[nodiscard]] const __nv_bfloat16* embedding() const { return embedding_.bf16(); }
  [[nodiscard]] const weight_matrix& head() const { return head_; } // [local vocab, hidden]
  [[nodiscard]] const float* output_norm() const { return output_norm_; }
  [[nodiscard]] static std::uint64_t bytes(const model_config& config, const shard& part,
                                           gpu_weights type);

private:
  class loader;
  device_buffer<unsigned char> arena_;
  std::vector<layer_weights> layers_;
  weight_matrix embedding_, head_;
  float* output_norm_ = nullptr;
};

} // namespace hexgen::compute::cuda
