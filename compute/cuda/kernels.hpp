// The small kernels between the products. All take a stream and check their launch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace hexgen::compute::cuda {

/// hidden[t] = table[ids[t]] in float32; an id below 0 stands for chosen[-1 - id]. Ids were checked
/// on the host.
void embed(const __nv_bfloat16* table, const std::int32_t* ids, const std::int32_t* chosen,
           float* hidden, int tokens, int width, cudaStream_t stream);

/// The residual stream and half of the norm behind it: what a product of few rows takes.
struct residual {
  float* hidden = nullptr;           // [tokens][width]
  const float* weight = nullptr;     // [width] of the norm
  __nv_bfloat16* weighted = nullptr; // [tokens][width] hidden times weight
  float* squares = nullptr;          // [tokens][width / 16] sums of hidden's squares
};
/// The same with half of the first norm; width a multiple of 16.
void embed(const __nv_bfloat16* table, const std::int32_t* ids, const std::int32_t* chosen,
           const residual& to, int tokens, int width, cudaStream_t stream);

/// out[t] = norm(hidden[rows ? rows[t] : t]) * weight. With `delta`: hidden[t] += delta[t] first,
/// and hidden keeps the sum.
void rms_norm(float* hidden, const __nv_bfloat16* delta, const float* weight, __nv_bfloat16* out,
              const std::int32_t* rows, int tokens, int width, float epsilon, cudaStream_t stream);

/// hidden[t] += delta[t]
void add(float* hidden, const __nv_bfloat16* delta, std::size_t values, cudaStream_t stream);

struct rope_store {
  __nv_bfloat16* qkv = nullptr; // [tokens][(heads + 2 kv_heads) head_dim]; q is rotated in place
  __nv_bfloat16* k_pool = nullptr;
  __nv_bfloat16* v_pool = nullptr;
  const float* table = nullptr;  // [context][head_dim / 2 cosines, then sines]
  const float* bias = nullptr;   // of qkv, or nullptr
  const float* q_norm = nullptr; // [head_dim], or nullptr
  const float* k_norm = nullptr;
  const std::int32_t* positions = nullptr; // [tokens]
  const std::int32_t* slots = nullptr;     // [tokens] block * 16 + offset; < 0: padding
  int heads = 0, kv_heads = 0, head_dim = 0;
  bool interleaved = false; // pairs (2i, 2i+1), else (i, i + head_dim/2)
  float epsilon = 1e-5F;
};
/// Bias, per-head norm, rotation of q and k, and k, v into their blocks.
void rotate_and_store(const rope_store& r, int tokens, cudaStream_t stream);

/// out[t][i] = silu(gate_up[t][2i]) * gate_up[t][2i+1]
void swiglu(const __nv_bfloat16* gate_up, __nv_bfloat16* out, int tokens, int ffn,
            cudaStream_t stream);

/// KV blocks from[i] -> to[i] of one pool of `block_values` a block.
void copy_blocks(__nv_bfloat16* pool, const std::int32_t* from_to, int pairs,
                 std::size_t block_values, cudaStream_t stream);

/// rows[t] of [rows][width]: the index of the largest value, the first of equals.
void argmax(const float* values, std::int32_t* index, int rows, int width, cudaStream_t stream);

/// Values of about +-scale from `seed` and the index alone.
void fill_random(__nv_bfloat16* out, std::size_t values, float scale, std::uint64_t seed,
                 cudaStream_t stream);

/// One decode step's bookkeeping on the device: positions and lengths grow by one, slots follow
/// from the tables, the chosen tokens become the next ids and are kept in history[step].
struct advance_args {
  const std::int32_t* chosen = nullptr; // [sequences]
  std::int32_t* ids = nullptr;
  std::int32_t* positions = nullptr;
  std::int32_t* lengths = nullptr;
  std::int32_t* slots = nullptr;
  const std::int32_t* tables = nullptr;
  int table_stride = 0;
  std::int32_t* history = nullptr; // [steps][sequences]
  std::int32_t* step = nullptr;    // counter, on the device
  int sequences = 0;
};
void advance(const advance_args& a, cudaStream_t stream);

/// float32 -> bf16
void narrow(const float* in, __nv_bfloat16* out, std::size_t values, cudaStream_t stream);

} // namespace hexgen::compute::cuda
