// Rotation of a decode step's heads inside the kernel that attends with them.
#pragma once

#include "compute/cuda/kernels.hpp"
#include "compute/cuda/tensor_core.cuh"

namespace hexgen::compute::cuda {

inline constexpr int block_positions = 16; // of a page

__device__ __forceinline__ float2 widen(unsigned pair) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
}

__device__ __forceinline__ float squares_of(float2 v) {
  return v.x * v.x + v.y * v.y;
}

__device__ __forceinline__ void turn(float& u, float& v, float c, float s) {
  const float turned = u * c - v * s;
  v = u * s + v * c;
  u = turned;
}

/// Two pairs of neighbours of a head, values i, i + 1 and D/2 + i, D/2 + i + 1: rotated as the
/// model pairs values. `angles`: D/2 cosines and D/2 sines of the position.
template <int D>
__device__ __forceinline__ void rotate(float2& low, float2& high, const float* angles, int i,
                                       bool interleaved) {
  if (interleaved) {
    turn(low.x, low.y, angles[i / 2], angles[D / 2 + i / 2]);
    turn(high.x, high.y, angles[D / 4 + i / 2], angles[D / 2 + D / 4 + i / 2]);
    return;
  }
  const float2 c = *reinterpret_cast<const float2*>(angles + i);
  const float2 s = *reinterpret_cast<const float2*>(angles + D / 2 + i);
  turn(low.x, high.x, c.x, s.x);
  turn(low.y, high.y, c.y, s.y);
}

__device__ __forceinline__ void add_pair(float2& v, const float* values) {
  v.x += values[0];
  v.y += values[1];
}

__device__ __forceinline__ void scale_pair(float2& v, float scale, const float* values) {
  v.x *= scale * values[0];
  v.y *= scale * values[1];
}

/// The rows of `half` of a score tile, as they come from the product: bias, norm, rotation. A row
/// is head `head`'s, its values are those of four neighbouring lanes.
template <int D>
__device__ __forceinline__ void rotate_query(unsigned (&query)[D / 16][4], int half, int head,
                                             const rope_store& r, const float* angles) {
  const int first = threadIdx.x % 4 * 2;
  float2 value[D / 16][2]; // d * 16 + part * 8 + first and the next
#pragma unroll
  for (int d = 0; d < D / 16; ++d)
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      value[d][part] = widen(query[d][half + 2 * part]);
      if (r.bias != nullptr)
        add_pair(value[d][part],
                 r.bias + static_cast<std::size_t>(head) * D + d * 16 + part * 8 + first);
    }
  if (r.q_norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int d = 0; d < D / 16; ++d)
      squares += squares_of(value[d][0]) + squares_of(value[d][1]);
    squares += __shfl_xor_sync(0xffffffffU, squares, 1);
    squares += __shfl_xor_sync(0xffffffffU, squares, 2);
    const float scale = rsqrtf(squares / static_cast<float>(D) + r.epsilon);
#pragma unroll
    for (int d = 0; d < D / 16; ++d)
#pragma unroll
      for (int part = 0; part < 2; ++part)
        scale_pair(value[d][part], scale, r.q_norm + d * 16 + part * 8 + first);
  }
#pragma unroll
  for (int d = 0; d < D / 32; ++d)
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      auto& low = value[d][part];
      auto& high = value[d + D / 32][part];
      rotate<D>(low, high, angles, d * 16 + part * 8 + first, r.interleaved);
      query[d][half + 2 * part] = pack(low.x, low.y);
      query[d + D / 32][half + 2 * part] = pack(high.x, high.y);
    }
}

/// This step's position of a KV head, as its page is to hold it: lane l < D/4 has values 2l, 2l + 1
/// and D/2 + 2l, D/2 + 2l + 1 of K and of V.
template <int D>
struct new_position {
  unsigned k[2], v[2];

  /// `row` of qkv; all lanes of a warp.
  __device__ __forceinline__ void read(const __nv_bfloat16* row, int kv_head, const rope_store& r,
                                       const float* angles) {
    const int lane = threadIdx.x % 32;
    const int i = lane % (D / 4) * 2;
    const auto head_of = [&](int head, float2& low, float2& high) {
      const auto* x = reinterpret_cast<const unsigned*>(row + static_cast<std::size_t>(head) * D);
      low = widen(x[i / 2]);
      high = widen(x[D / 4 + i / 2]);
      if (r.bias != nullptr) {
        add_pair(low, r.bias + static_cast<std::size_t>(head) * D + i);
        add_pair(high, r.bias + static_cast<std::size_t>(head) * D + D / 2 + i);
      }
    };
    float2 low;
    float2 high;
    head_of(r.heads + kv_head, low, high);
    if (r.k_norm != nullptr) {
      float squares = squares_of(low) + squares_of(high);
#pragma unroll
      for (int offset = D / 8; offset > 0; offset /= 2)
        squares += __shfl_xor_sync(0xffffffffU, squares, offset);
      const float scale = rsqrtf(squares / static_cast<float>(D) + r.epsilon);
      scale_pair(low, scale, r.k_norm + i);
      scale_pair(high, scale, r.k_norm + D / 2 + i);
    }
    rotate<D>(low, high, angles, i, r.interleaved);
    k[0] = pack(low.x, low.y);
    k[1] = pack(high.x, high.y);
    head_of(r.heads + r.kv_heads + kv_head, low, high);
    v[0] = pack(low.x, low.y);
    v[1] = pack(high.x, high.y);
  }

  /// To the pools.
  __device__ __forceinline__ void keep(__nv_bfloat16* k_row, __nv_bfloat16* v_row) const {
    const int lane = threadIdx.x % 32;
    if (lane >= D / 4)
      return;
    for (int part = 0; part < 2; ++part) {
      reinterpret_cast<unsigned*>(k_row)[part * (D / 4) + lane] = k[part];
      reinterpret_cast<unsigned*>(v_row)[part * (D / 4) + lane] = v[part];
    }
  }

  /// To rows [first, 16) of the warp's page: those past the end must hold numbers.
  __device__ __forceinline__ void fill(__nv_bfloat16* k_page, __nv_bfloat16* v_page,
                                       int first) const {
    const int lane = threadIdx.x % 32;
    if (lane >= D / 4)
      return;
    for (int row = first; row < block_positions; ++row)
      for (int part = 0; part < 2; ++part) {
        const int to = at<D>(row, part * (D / 16) + lane / 4) + lane % 4 * 2;
        *reinterpret_cast<unsigned*>(k_page + to) = k[part];
        *reinterpret_cast<unsigned*>(v_page + to) = v[part];
      }
  }
};

} // namespace hexgen::compute::cuda
