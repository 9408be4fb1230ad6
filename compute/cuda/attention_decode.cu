// Decode attention: bound by reading K and V once, so everything serves wide, early loads.
#include "compute/cuda/attention.hpp"
#include "compute/cuda/launch.cuh"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace hexgen::compute::cuda {
namespace {

constexpr int page = 16;
constexpr int warps = 4;

struct alignas(16) bf16x8 {
  __nv_bfloat162 pair[4];
};

__device__ __forceinline__ void widen(const bf16x8& in, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = __bfloat1622float2(in.pair[i]);
    out[2 * i] = f.x;
    out[2 * i + 1] = f.y;
  }
}

/// A team of D/8 lanes owns a position at a time; GROUP query heads share each loaded row.
/// Grid: (splits, kv_heads, sequences).
template <int D, int GROUP>
__global__ void __launch_bounds__(warps * 32)
    decode_kernel(const __nv_bfloat16* __restrict__ q, int q_stride,
                  __nv_bfloat16* __restrict__ out, paged_kv kv,
                  const std::int32_t* __restrict__ rows, const std::int32_t* __restrict__ lengths,
                  int heads, int first_in_group, int group, float scale_log2,
                  float* __restrict__ scratch) {
  constexpr int team = D / 8;      // lanes of a position
  constexpr int teams = 32 / team; // positions a warp has at once
  constexpr int unroll = GROUP <= 2 ? 4 : 2;
  allow_successor();
  wait_for_predecessor();
  const int sequence = blockIdx.z;
  const int length = lengths[sequence];
  if (length == 0)
    return;
  const std::size_t row_index = rows == nullptr ? sequence : rows[sequence];
  const int kv_head = blockIdx.y;
  const int split = blockIdx.x;
  const int splits = gridDim.x;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int in_team = lane % team;
  const int team_of_block = warp * teams + lane / team;
  constexpr int stride = warps * teams; // positions between a team's visits

  // Whole pages for each split, so that a page's table entry is read once.
  const int pages = (length + page - 1) / page;
  const int pages_each = (pages + splits - 1) / splits;
  const int begin = min(length, split * pages_each * page);
  const int end = min(length, begin + pages_each * page);

  const int first_head = kv_head * group + first_in_group;
  float query[GROUP][8];
#pragma unroll
  for (int g = 0; g < GROUP; ++g) {
    const auto* row =
        q + row_index * q_stride + static_cast<std::size_t>(first_head + g) * D + in_team * 8;
    widen(*reinterpret_cast<const bf16x8*>(row), query[g]);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      query[g][i] *= scale_log2;
  }
  float most[GROUP];
  float sum[GROUP];
  float acc[GROUP][8];
#pragma unroll
  for (int g = 0; g < GROUP; ++g) {
    most[g] = -INFINITY;
    sum[g] = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      acc[g][i] = 0;
  }
  const std::int32_t* table = kv.tables + static_cast<std::size_t>(sequence) * kv.table_stride;
  const std::size_t row_values = static_cast<std::size_t>(kv.kv_heads) * D;
  const std::size_t head_offset = static_cast<std::size_t>(kv_head) * D + in_team * 8;

  // The whole warp makes the same rounds (shuffles need all lanes); a team past the end idles.
  for (int round = begin + warp * teams; round < end; round += stride * unroll) {
    const int base = round + lane / team;
    bf16x8 keys[unroll];
    bf16x8 values[unroll];
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
      const int position = min(base + u * stride, end - 1);
      const std::size_t at =
          (static_cast<std::size_t>(table[position / page]) * page + position % page) * row_values +
          head_offset;
      keys[u] = *reinterpret_cast<const bf16x8*>(kv.k + at);
      values[u] = *reinterpret_cast<const bf16x8*>(kv.v + at);
    }
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
      const bool inside = base + u * stride < end;
      float k[8];
      widen(keys[u], k);
      float v[8];
      widen(values[u], v);
#pragma unroll
      for (int g = 0; g < GROUP; ++g) {
        float dot = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i)
          dot = fmaf(query[g][i], k[i], dot);
#pragma unroll
        for (int offset = team / 2; offset > 0; offset /= 2)
          dot += __shfl_xor_sync(0xffffffffU, dot, offset, team);
        if (!inside)
          dot = -INFINITY;
        const float top = fmaxf(most[g], dot);
        // A team without a position yet has most = -inf: exp2(-inf - -inf) must not be made.
        const float keep = most[g] == -INFINITY ? 0.0F : exp2f(most[g] - top);
        const float weight = dot == -INFINITY ? 0.0F : exp2f(dot - top);
        most[g] = top;
        sum[g] = sum[g] * keep + weight;
#pragma unroll
        for (int i = 0; i < 8; ++i)
          acc[g][i] = fmaf(weight, v[i], acc[g][i] * keep);
      }
    }
  }

  // Merge the block's teams.
  __shared__ float shared_most[GROUP][stride];
  __shared__ float shared_sum[GROUP][stride];
  __shared__ float shared_acc[stride][D];
  if (in_team == 0) {
#pragma unroll
    for (int g = 0; g < GROUP; ++g) {
      shared_most[g][team_of_block] = most[g];
      shared_sum[g][team_of_block] = sum[g];
    }
  }
#pragma unroll
  for (int g = 0; g < GROUP; ++g) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; ++i)
      shared_acc[team_of_block][in_team * 8 + i] = acc[g][i];
    __syncthreads();
    float top = -INFINITY;
    for (int t = 0; t < stride; ++t)
      top = fmaxf(top, shared_most[g][t]);
    for (int d = threadIdx.x; d < D; d += warps * 32) {
      float total = 0;
      float value = 0;
      for (int t = 0; t < stride; ++t) {
        const float m = shared_most[g][t];
        const float w = m == -INFINITY ? 0.0F : exp2f(m - top);
        total += w * shared_sum[g][t];
        value += w * shared_acc[t][d];
      }
      const std::size_t head = static_cast<std::size_t>(sequence) * heads + first_head + g;
      if (splits == 1) {
        out[(row_index * heads + first_head + g) * D + d] = __float2bfloat16(value / total);
      } else {
        float* part = scratch + (head * splits + split) * (D + 2);
        part[d] = value;
        if (d == 0) {
          part[D] = top;
          part[D + 1] = total;
        }
      }
    }
  }
}

/// Sums the splits' parts. Grid: (heads, sequences), D threads.
template <int D>
__global__ void merge_kernel(const float* __restrict__ scratch, __nv_bfloat16* __restrict__ out,
                             const std::int32_t* __restrict__ rows,
                             const std::int32_t* __restrict__ lengths, int heads, int splits) {
  allow_successor();
  wait_for_predecessor();
  if (lengths[blockIdx.y] == 0)
    return;
  const std::size_t head = static_cast<std::size_t>(blockIdx.y) * heads + blockIdx.x;
  const float* parts = scratch + head * splits * (D + 2);
  float top = -INFINITY;
  for (int s = 0; s < splits; ++s)
    top = fmaxf(top, parts[s * (D + 2) + D]);
  float total = 0;
  float value = 0;
  for (int s = 0; s < splits; ++s) {
    const float* part = parts + s * (D + 2);
    const float w = part[D] == -INFINITY ? 0.0F : exp2f(part[D] - top);
    total += w * part[D + 1];
    value += w * part[threadIdx.x];
  }
  const std::size_t row = rows == nullptr ? blockIdx.y : rows[blockIdx.y];
  out[(row * heads + blockIdx.x) * D + threadIdx.x] = __float2bfloat16(value / total);
}

struct launch {
  const __nv_bfloat16* q;
  int q_stride;
  __nv_bfloat16* out;
  const paged_kv& kv;
  const std::int32_t* rows;
  const std::int32_t* lengths;
  int sequences, heads, splits;
  float* scratch;
  cudaStream_t stream;
};

template <int D, int GROUP>
void launch_group(const launch& l, int first, int group) {
  const float scale_log2 = 1.4426950408889634F / std::sqrt(static_cast<float>(D));
  const dim3 grid(static_cast<unsigned>(l.splits), static_cast<unsigned>(l.kv.kv_heads),
                  static_cast<unsigned>(l.sequences));
  launch_dependent(decode_kernel<D, GROUP>, grid, warps * 32, 0, l.stream, l.q, l.q_stride, l.out,
                   l.kv, l.rows, l.lengths, l.heads, first, group, scale_log2, l.scratch);
}

template <int D>
void launch_dim(const launch& l) {
  const int group = l.heads / l.kv.kv_heads;
  // Groups wider than 4 read K and V again from the cache: registers would spill.
  for (int first = 0; first < group;) {
    const int width = std::min(4, group - first);
    switch (width) {
    case 1:
      launch_group<D, 1>(l, first, group);
      break;
    case 2:
      launch_group<D, 2>(l, first, group);
      break;
    case 3:
      launch_group<D, 3>(l, first, group);
      break;
    default:
      launch_group<D, 4>(l, first, group);
      break;
    }
    first += width;
  }
  if (l.splits > 1)
    launch_dependent(merge_kernel<D>,
                     dim3(static_cast<unsigned>(l.heads), static_cast<unsigned>(l.sequences)), D, 0,
                     l.stream, l.scratch, l.out, l.rows, l.lengths, l.heads, l.splits);
}

} // namespace

std::size_t decode_scratch_floats(int sequences, int heads, int head_dim) {
  return static_cast<std::size_t>(sequences) * heads * max_kv_splits * (head_dim + 2);
}

void decode_attention(const __nv_bfloat16* q, int q_stride, __nv_bfloat16* out, const paged_kv& kv,
                      const std::int32_t* rows, const std::int32_t* lengths, int sequences,
                      int heads, int splits, float* scratch, cudaStream_t stream) {
  const launch l{q, q_stride, out, kv, rows, lengths, sequences, heads, splits, scratch, stream};
  switch (kv.head_dim) {
  case 64:
    launch_dim<64>(l);
    break;
  case 128:
    launch_dim<128>(l);
    break;
  default:
    throw std::invalid_argument("head_dim " + std::to_string(kv.head_dim) +
                                " is not served by the GPU backend (64 and 128 are)");
  }
}

} // namespace hexgen::compute::cuda
