// Hyper-parameters of a Llama-family model, whatever file they were read from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hexgen::compute {

/// How the rotary embedding's frequencies are stretched for long contexts.
enum class rope_scaling : std::uint8_t { none, linear, llama3, yarn };

struct model_config {
  std::string name;         // as the file calls itself
  std::string architecture; // llama, qwen2, qwen3, mistral
  int layers = 0;
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn = 0;
  int vocab = 0;
  int context = 0; // longest sequence the model was trained for, in tokens
  float norm_epsilon = 1e-5F;
  bool tied_head = false; // the output head is the token embedding
  bool qkv_bias = false;
  bool qk_norm = false; // RMSNorm over each query and key head (Qwen3)

  double rope_theta = 10000.0;
  /// true: rotary pairs are (2i, 2i+1), as GGUF stores the llama architecture; false: (i, i+d/2).
  bool rope_interleaved = false;
  rope_scaling scaling = rope_scaling::none;
  double rope_factor = 1.0;
  double rope_low_frequency_factor = 1.0;  // llama3
  double rope_high_frequency_factor = 4.0; // llama3
  int rope_original_context = 0;           // llama3, yarn
  std::vector<float> rope_frequency_factors; // GGUF's rope_freqs tensor, head_dim/2, or empty

  [[nodiscard]] int group() const { return heads / kv_heads; } // query heads per KV head
  [[nodiscard]] int q_width() const { return heads * head_dim; }
  [[nodiscard]] int kv_width() const { return kv_heads * head_dim; }
};

} // namespace hexgen::compute
