#include "compute/cuda/kernels.hpp"
#include "compute/cuda/launch.cuh"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace hexgen::compute::cuda {
namespace {

struct alignas(16) bf16x8 {
  __nv_bfloat162 pair[4];
};

__device__ __forceinline__ float2 widen(__nv_bfloat162 v) {
  return __bfloat1622float2(v);
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    v += __shfl_xor_sync(0xffffffffU, v, offset);
  return v;
}

/// The same sum in every thread; blockDim a multiple of 32, at most 1024.
__device__ __forceinline__ float block_sum(float v) {
  __shared__ float parts[32];
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0)
    parts[threadIdx.x / 32] = v;
  __syncthreads();
  float total = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0F;
  return warp_sum(total);
}

__global__ void embed_kernel(const __nv_bfloat16* __restrict__ table,
                             const std::int32_t* __restrict__ ids,
                             const std::int32_t* __restrict__ chosen, float* __restrict__ hidden,
                             int width) {
  allow_successor();
  wait_for_predecessor();
  const std::int32_t given = ids[blockIdx.x];
  const std::int32_t id = given < 0 ? chosen[-1 - given] : given;
  const auto* row = table + static_cast<std::size_t>(id) * width;
  auto* to = hidden + static_cast<std::size_t>(blockIdx.x) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    to[i] = __bfloat162float(row[i]);
}

/// Grid: (width / blockDim rounded up, tokens); a thread a value.
__global__ void embed_few_kernel(const __nv_bfloat16* __restrict__ table,
                                 const std::int32_t* __restrict__ ids,
                                 const std::int32_t* __restrict__ chosen, residual to, int width) {
  allow_successor();
  wait_for_predecessor();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= width)
    return;
  const std::size_t token = blockIdx.y;
  const std::int32_t given = ids[token];
  const std::int32_t id = given < 0 ? chosen[-1 - given] : given;
  const float value = __bfloat162float(table[static_cast<std::size_t>(id) * width + i]);
  const std::size_t at = token * width + i;
  to.hidden[at] = value;
  to.weighted[at] = __float2bfloat16(value * to.weight[i]);
  float squares = value * value;
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffU : 0xffff0000U;
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2)
    squares += __shfl_xor_sync(half, squares, offset);
  if (i % 16 == 0)
    to.squares[at / 16] = squares;
}

constexpr int norm_kept = 4; // float4s of a row that a thread keeps

__global__ void rms_norm_kernel(float* __restrict__ hidden, const __nv_bfloat16* __restrict__ delta,
                                const float* __restrict__ weight, __nv_bfloat16* __restrict__ out,
                                const std::int32_t* __restrict__ rows, int width, float epsilon) {
  allow_successor();
  wait_for_predecessor();
  const std::size_t row = rows == nullptr ? blockIdx.x : rows[blockIdx.x];
  auto* x = reinterpret_cast<float4*>(hidden + row * width);
  const auto* d = reinterpret_cast<const uint2*>(delta == nullptr ? nullptr : delta + row * width);
  const int quads = width / 4;
  float4 kept[norm_kept];
  float squares = 0;
#pragma unroll
  for (int c = 0; c < norm_kept; ++c) {
    const int i = threadIdx.x + c * blockDim.x;
    if (i >= quads)
      break;
    float4 v = x[i];
    if (d != nullptr) {
      const uint2 add = d[i];
      const float2 low = widen(*reinterpret_cast<const __nv_bfloat162*>(&add.x));
      const float2 high = widen(*reinterpret_cast<const __nv_bfloat162*>(&add.y));
      v = make_float4(v.x + low.x, v.y + low.y, v.z + high.x, v.w + high.y);
      x[i] = v;
    }
    kept[c] = v;
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(width) + epsilon);
  auto* to = reinterpret_cast<uint2*>(out + static_cast<std::size_t>(blockIdx.x) * width);
  const auto* w = reinterpret_cast<const float4*>(weight);
#pragma unroll
  for (int c = 0; c < norm_kept; ++c) {
    const int i = threadIdx.x + c * blockDim.x;
    if (i >= quads)
      break;
    const float4 v = kept[c];
    const float4 g = w[i];
    const __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(v.x * scale * g.x, v.y * scale * g.y),
                                    __floats2bfloat162_rn(v.z * scale * g.z, v.w * scale * g.w)};
    to[i] = *reinterpret_cast<const uint2*>(pair);
  }
}

__global__ void add_kernel(float2* __restrict__ hidden, const __nv_bfloat162* __restrict__ delta,
                           std::size_t pairs) {
  allow_successor();
  wait_for_predecessor();
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= pairs)
    return;
  float2 v = hidden[i];
  const float2 d = widen(delta[i]);
  v.x += d.x;
  v.y += d.y;
  hidden[i] = v;
}

__device__ __forceinline__ void widen(const bf16x8& in, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = widen(in.pair[i]);
    out[2 * i] = f.x;
    out[2 * i + 1] = f.y;
  }
}

__device__ __forceinline__ bf16x8 narrow(const float (&in)[8]) {
  bf16x8 out;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    out.pair[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
  return out;
}

/// A thread owns 8 values of each half of a head; head_dim / 16 neighbours own a head. Grid over
/// tokens x (heads + 2 kv_heads) x head_dim / 16.
__global__ void rotate_kernel(rope_store r, unsigned units) {
  allow_successor();
  wait_for_predecessor();
  const int d = r.head_dim;
  const int half = d / 2;
  const unsigned owners = static_cast<unsigned>(d) / 16; // 4 or 8: never across warps
  const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned all = r.heads + 2 * r.kv_heads;
  // Threads past the end stay for the shuffles.
  const unsigned unit = min(item / owners, units - 1);
  const int owner = static_cast<int>(item % owners);
  const int token = static_cast<int>(unit / all);
  const int head = static_cast<int>(unit % all);
  const int slot = r.slots[token];
  const bool is_v = head >= r.heads + r.kv_heads;
  const bool is_q = head < r.heads;
  auto* x = r.qkv + static_cast<std::size_t>(unit) * d;
  const int low = owner * 8;
  const int high = half + low;
  float a[8];
  float b[8];
  widen(*reinterpret_cast<const bf16x8*>(x + low), a);
  widen(*reinterpret_cast<const bf16x8*>(x + high), b);
  if (r.bias != nullptr) {
    const float* bias = r.bias + static_cast<std::size_t>(head) * d;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      a[i] += bias[low + i];
      b[i] += bias[high + i];
    }
  }
  if (r.q_norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      squares += a[i] * a[i] + b[i] * b[i];
    for (unsigned offset = owners / 2; offset > 0; offset /= 2)
      squares += __shfl_xor_sync(0xffffffffU, squares, offset);
    if (!is_v) {
      const float scale = rsqrtf(squares / static_cast<float>(d) + r.epsilon);
      const float* norm = is_q ? r.q_norm : r.k_norm;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        a[i] *= scale * norm[low + i];
        b[i] *= scale * norm[high + i];
      }
    }
  }
  if (item / owners >= units || slot < 0)
    return;
  if (!is_v) {
    const float* angles = r.table + static_cast<std::size_t>(r.positions[token]) * d;
    auto rotate = [](float& u, float& v, float c, float s) {
      const float rotated = u * c - v * s;
      v = u * s + v * c;
      u = rotated;
    };
    const auto four = [&](int at) { return *reinterpret_cast<const float4*>(angles + at); };
    if (r.interleaved) {
      auto rotate_pairs = [&](float(&x8)[8], int at) {
        const float4 c = four(at);
        const float4 s = four(half + at);
        rotate(x8[0], x8[1], c.x, s.x);
        rotate(x8[2], x8[3], c.y, s.y);
        rotate(x8[4], x8[5], c.z, s.z);
        rotate(x8[6], x8[7], c.w, s.w);
      };
      rotate_pairs(a, low / 2);
      rotate_pairs(b, high / 2);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i += 4) {
        const float4 c = four(low + i);
        const float4 s = four(half + low + i);
        rotate(a[i], b[i], c.x, s.x);
        rotate(a[i + 1], b[i + 1], c.y, s.y);
        rotate(a[i + 2], b[i + 2], c.z, s.z);
        rotate(a[i + 3], b[i + 3], c.w, s.w);
      }
    }
  }
  __nv_bfloat16* to = x;
  if (!is_q) {
    const int kv_head = (head - r.heads) % r.kv_heads;
    to = (is_v ? r.v_pool : r.k_pool) + (static_cast<std::size_t>(slot) * r.kv_heads + kv_head) * d;
  }
  *reinterpret_cast<bf16x8*>(to + low) = narrow(a);
  *reinterpret_cast<bf16x8*>(to + high) = narrow(b);
}

__device__ __forceinline__ float silu(float x) {
  return x / (1.0F + __expf(-x));
}

__global__ void swiglu_kernel(const bf16x8* __restrict__ in, uint2* __restrict__ out,
                              std::size_t count) {
  allow_successor();
  wait_for_predecessor();
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count)
    return;
  const bf16x8 v = in[i];
  __nv_bfloat162 pair[2];
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const float2 one = widen(v.pair[2 * p]);
    const float2 two = widen(v.pair[2 * p + 1]);
    pair[p] = __floats2bfloat162_rn(silu(one.x) * one.y, silu(two.x) * two.y);
  }
  out[i] = *reinterpret_cast<uint2*>(pair);
}

__global__ void copy_blocks_kernel(__nv_bfloat16* pool, const std::int32_t* __restrict__ from_to,
                                   std::size_t block_values) {
  allow_successor();
  wait_for_predecessor();
  const auto* from = reinterpret_cast<const uint4*>(
      pool + static_cast<std::size_t>(from_to[2 * blockIdx.x]) * block_values);
  auto* to = reinterpret_cast<uint4*>(pool + static_cast<std::size_t>(from_to[2 * blockIdx.x + 1]) *
                                                 block_values);
  for (std::size_t i = threadIdx.x; i < block_values / 8; i += blockDim.x)
    to[i] = from[i];
}

__global__ void narrow_kernel(const float* __restrict__ in, __nv_bfloat16* __restrict__ out,
                              std::size_t values) {
  allow_successor();
  wait_for_predecessor();
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < values)
    out[i] = __float2bfloat16(in[i]);
}

__global__ void argmax_kernel(const float* __restrict__ values, std::int32_t* __restrict__ index,
                              int width) {
  allow_successor();
  wait_for_predecessor();
  const float* row = values + static_cast<std::size_t>(blockIdx.x) * width;
  float best = -INFINITY;
  int at = width;
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    if (row[i] > best) {
      best = row[i];
      at = i;
    }
  auto better = [&](float other, int other_at) {
    if (other > best || (other == best && other_at < at)) {
      best = other;
      at = other_at;
    }
  };
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(0xffffffffU, best, offset);
    const int other_at = __shfl_xor_sync(0xffffffffU, at, offset);
    better(other, other_at);
  }
  __shared__ float bests[32];
  __shared__ int ats[32];
  if (threadIdx.x % 32 == 0) {
    bests[threadIdx.x / 32] = best;
    ats[threadIdx.x / 32] = at;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned w = 1; w < blockDim.x / 32; ++w)
      better(bests[w], ats[w]);
    index[blockIdx.x] = at < width ? at : 0; // all NaN: token 0
  }
}

__global__ void fill_random_kernel(__nv_bfloat16* out, std::size_t values, float scale,
                                   std::uint64_t seed) {
  allow_successor();
  wait_for_predecessor();
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < values;
       i += stride) {
    std::uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15ULL; // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    z ^= z >> 31;
    const float unit = static_cast<float>(z >> 40) * (2.0F / (1 << 24)) - 1.0F;
    out[i] = __float2bfloat16(unit * scale);
  }
}

__global__ void advance_kernel(advance_args a) {
  allow_successor();
  wait_for_predecessor();
  const int s = blockIdx.x * blockDim.x + threadIdx.x;
  if (s >= a.sequences || a.lengths[s] == 0)
    return;
  const int token = a.chosen[s];
  a.history[static_cast<std::size_t>(*a.step) * a.sequences + s] = token;
  a.ids[s] = token;
  const int position = a.positions[s] + 1;
  a.positions[s] = position;
  a.lengths[s] = position + 1;
  a.slots[s] =
      a.tables[static_cast<std::size_t>(s) * a.table_stride + position / 16] * 16 + position % 16;
}

__global__ void count_kernel(std::int32_t* step) {
  allow_successor();
  wait_for_predecessor();
  ++*step;
}

unsigned blocks_of(std::size_t items, unsigned block) {
  return static_cast<unsigned>((items + block - 1) / block);
}

} // namespace

void embed(const __nv_bfloat16* table, const std::int32_t* ids, const std::int32_t* chosen,
           float* hidden, int tokens, int width, cudaStream_t stream) {
  launch_dependent(embed_kernel, dim3(static_cast<unsigned>(tokens)), 256, 0, stream, table, ids,
                   chosen, hidden, width);
}

void embed(const __nv_bfloat16* table, const std::int32_t* ids, const std::int32_t* chosen,
           const residual& to, int tokens, int width, cudaStream_t stream) {
  launch_dependent(
      embed_few_kernel,
      dim3(blocks_of(static_cast<std::size_t>(width), 256), static_cast<unsigned>(tokens)), 256, 0,
      stream, table, ids, chosen, to, width);
}

void rms_norm(float* hidden, const __nv_bfloat16* delta, const float* weight, __nv_bfloat16* out,
              const std::int32_t* rows, int tokens, int width, float epsilon, cudaStream_t stream) {
  if (tokens == 0)
    return;
  // Two float4s a thread, up to norm_kept in the widest rows.
  const unsigned block = std::min(1024U, (static_cast<unsigned>(width) / 8 + 31) / 32 * 32);
  if (width % 4 != 0 || static_cast<unsigned>(width) > 4 * norm_kept * block)
    throw std::invalid_argument("a hidden size of " + std::to_string(width) +
                                " is not served by the GPU backend");
  launch_dependent(rms_norm_kernel, dim3(static_cast<unsigned>(tokens)), block, 0, stream, hidden,
                   delta, weight, out, rows, width, epsilon);
}

void add(float* hidden, const __nv_bfloat16* delta, std::size_t values, cudaStream_t stream) {
  launch_dependent(add_kernel, dim3(blocks_of(values / 2, 256)), 256, 0, stream,
                   reinterpret_cast<float2*>(hidden),
                   reinterpret_cast<const __nv_bfloat162*>(delta), values / 2);
}

void rotate_and_store(const rope_store& r, int tokens, cudaStream_t stream) {
  const auto units = static_cast<unsigned>(tokens) * (r.heads + 2 * r.kv_heads);
  launch_dependent(rotate_kernel,
                   dim3(blocks_of(static_cast<std::size_t>(units) * (r.head_dim / 16), 256)), 256,
                   0, stream, r, units);
}

void swiglu(const __nv_bfloat16* gate_up, __nv_bfloat16* out, int tokens, int ffn,
            cudaStream_t stream) {
  const std::size_t count = static_cast<std::size_t>(tokens) * ffn / 4;
  launch_dependent(swiglu_kernel, dim3(blocks_of(count, 256)), 256, 0, stream,
                   reinterpret_cast<const bf16x8*>(gate_up), reinterpret_cast<uint2*>(out), count);
}

void copy_blocks(__nv_bfloat16* pool, const std::int32_t* from_to, int pairs,
                 std::size_t block_values, cudaStream_t stream) {
  if (pairs == 0)
    return;
  launch_dependent(copy_blocks_kernel, dim3(static_cast<unsigned>(pairs)), 256, 0, stream, pool,
                   from_to, block_values);
}

void argmax(const float* values, std::int32_t* index, int rows, int width, cudaStream_t stream) {
  if (rows == 0)
    return;
  launch_dependent(argmax_kernel, dim3(static_cast<unsigned>(rows)), 1024, 0, stream, values, index,
                   width);
}

void fill_random(__nv_bfloat16* out, std::size_t values, float scale, std::uint64_t seed,
                 cudaStream_t stream) {
  launch_dependent(fill_random_kernel, dim3(2048), 256, 0, stream, out, values, scale, seed);
}

void advance(const advance_args& a, cudaStream_t stream) {
  launch_dependent(advance_kernel, dim3(blocks_of(static_cast<std::size_t>(a.sequences), 256)), 256,
                   0, stream, a);
  launch_dependent(count_kernel, dim3(1), 1, 0, stream, a.step);
}

void narrow(const float* in, __nv_bfloat16* out, std::size_t values, cudaStream_t stream) {
  launch_dependent(narrow_kernel, dim3(blocks_of(values, 256)), 256, 0, stream, in, out, values);
}

} // namespace hexgen::compute::cuda
