// Decode attention: bound by reading K and V once, so each warp keeps pages on their way and the
// arithmetic goes to the tensor cores, however few rows of a tile are used.
#include "compute/cuda/attention.hpp"
#include "compute/cuda/launch.cuh"
#include "compute/cuda/rotate.cuh"
#include "compute/cuda/tensor_core.cuh"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace hexgen::compute::cuda {
namespace {

constexpr int page = block_positions;
constexpr int warps = 4;

/// Shared memory of a block, in values: each warp's STAGES of a page of K and of V. The merge of
/// the warps' parts reuses it.
template <int D, int STAGES>
constexpr int shared_values = warps* STAGES * 2 * page* D;

/// A warp takes every 4th page of the block's split; the query heads that share a KV head are the
/// rows of its score tile (at most 8 * HALVES). Grid: (splits, kv_heads, sequences). ROTATE: q and
/// this step's K and V come as the product left them.
template <int D, int HALVES, int STAGES, bool ROTATE>
__global__ void __launch_bounds__(warps * 32)
    decode_kernel(const __nv_bfloat16* __restrict__ q, int q_stride,
                  __nv_bfloat16* __restrict__ out, paged_kv kv,
                  const __grid_constant__ rope_store rope, const std::int32_t* __restrict__ rows,
                  const std::int32_t* __restrict__ lengths, int heads, int first_in_group,
                  int width, int pages_each, float scale_log2, bool early,
                  float* __restrict__ scratch, unsigned* __restrict__ ended) {
  extern __shared__ __align__(128) __nv_bfloat16 shared[];
  constexpr int chunks = D / 8;
  constexpr int head_rows = 8 * HALVES;
  allow_successor();
  if (!early)
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
  const int first_head = kv_head * (heads / kv.kv_heads) + first_in_group;

  const int pages = (length + page - 1) / page;
  if (pages_each == 0)
    pages_each = (pages + splits - 1) / splits;
  const int end_page = min(pages, (split + 1) * pages_each);
  const std::int32_t* table = kv.tables + static_cast<std::size_t>(sequence) * kv.table_stride;
  const std::size_t row_values = static_cast<std::size_t>(kv.kv_heads) * D;
  __nv_bfloat16* mine = shared + warp * STAGES * 2 * page * D;

  auto load = [&](int p, int stage) {
    if (p < end_page) {
      // Positions past the end may hold anything: repeat the last one instead. With ROTATE this
      // step's is not there yet.
      const int last = min(page, length - (ROTATE ? 1 : 0) - p * page) - 1;
      const std::size_t from = static_cast<std::size_t>(table[p]) * page * row_values +
                               static_cast<std::size_t>(kv_head) * D;
      __nv_bfloat16* k = mine + stage * 2 * page * D;
#pragma unroll
      for (int i = lane; i < page * chunks; i += 32) {
        const int row = i / chunks;
        const int chunk = i % chunks;
        if (ROTATE && row > last)
          break; // new_position::fill
        const std::size_t value = from + min(row, last) * row_values + chunk * 8;
        copy_16(k + at<D>(row, chunk), kv.k + value);
        copy_16(k + page * D + at<D>(row, chunk), kv.v + value);
      }
    }
  };
  const int first_page = split * pages_each + warp;
  if (early) {
    // Only the last page waits for the kernel before, which writes this step's position to it.
#pragma unroll
    for (int s = 0; s < STAGES; ++s)
      if (ROTATE || first_page + s * warps != pages - 1)
        load(first_page + s * warps, s);
    wait_for_predecessor();
  }
#pragma unroll
  for (int s = 0; s < STAGES; ++s) {
    if (!early || (!ROTATE && first_page + s * warps == pages - 1))
      load(first_page + s * warps, s);
    commit_copies();
  }
  const float* angles = ROTATE ? rope.table + static_cast<std::size_t>(length - 1) * D : nullptr;
  new_position<D> now;
  const bool last_here =
      ROTATE && first_page < end_page && end_page == pages && (pages - 1 - first_page) % warps == 0;
  auto fill = [&](int p, int stage) {
    if (last_here && p == pages - 1) {
      __nv_bfloat16* k = mine + stage * 2 * page * D;
      now.fill(k, k + page * D, (length - 1) % page);
    }
  };
  if (last_here) {
    now.read(rope.qkv + row_index * q_stride, kv_head, rope, angles);
    const std::size_t to =
        (static_cast<std::size_t>(table[pages - 1]) * page + (length - 1) % page) * row_values +
        static_cast<std::size_t>(kv_head) * D;
    now.keep(rope.k_pool + to, rope.v_pool + to);
#pragma unroll
    for (int s = 0; s < STAGES; ++s)
      fill(first_page + s * warps, s);
  }

  unsigned query[D / 16][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + half * 8;
    const auto* row = reinterpret_cast<const unsigned*>(
        q + row_index * q_stride + static_cast<std::size_t>(first_head + head) * D);
#pragma unroll
    for (int d = 0; d < D / 16; ++d)
#pragma unroll
      for (int part = 0; part < 2; ++part)
        query[d][half + 2 * part] =
            half < HALVES && head < width ? row[d * 8 + part * 4 + lane % 4] : 0U;
    if (ROTATE && half < HALVES)
      rotate_query<D>(query, half, first_head + min(head, width - 1), rope, angles);
  }
  float most[HALVES];
  float sum[HALVES] = {};
  float acc[D / 8][4] = {};
#pragma unroll
  for (int half = 0; half < HALVES; ++half)
    most[half] = -INFINITY;

  int stage = 0;
  for (int p = first_page; p < end_page; p += warps) {
    wait_for_copies<STAGES - 1>();
    __syncwarp();
    const __nv_bfloat16* k = mine + stage * 2 * page * D;
    const __nv_bfloat16* v = k + page * D;
    float score[2][4] = {};
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      unsigned b[4]; // positions 0-7 and 8-15, each two halves of 16 values
      load_matrices(b, k + at<D>((lane / 16) * 8 + lane % 8, 2 * d + (lane / 8) % 2));
      multiply(score[0], query[d], b[0], b[1]);
      multiply(score[1], query[d], b[2], b[3]);
    }
    const int inside = length - p * page; // positions of this page that count
#pragma unroll
    for (int half = 0; half < HALVES; ++half) {
      float top = most[half];
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& s = score[n][half * 2 + i];
          s = n * 8 + (lane % 4) * 2 + i < inside ? s * scale_log2 : -INFINITY;
          top = fmaxf(top, s);
        }
      top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 2));
      // A page has a position that counts, so top is finite.
      const float keep = exp2f(most[half] - top);
      most[half] = top;
      float part = 0;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& s = score[n][half * 2 + i];
          s = exp2f(s - top);
          part += s;
        }
      sum[half] = sum[half] * keep + part;
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        acc[d][half * 2] *= keep;
        acc[d][half * 2 + 1] *= keep;
      }
    }
    const unsigned weight[4] = {pack(score[0][0], score[0][1]), pack(score[0][2], score[0][3]),
                                pack(score[1][0], score[1][1]), pack(score[1][2], score[1][3])};
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      unsigned b[4];
      load_matrices_transposed(b, v + at<D>(lane % 16, 2 * d + lane / 16));
      multiply(acc[2 * d], weight, b[0], b[1]);
      multiply(acc[2 * d + 1], weight, b[2], b[3]);
    }
    __syncwarp(); // all lanes have read the stage
    load(p + STAGES * warps, stage);
    commit_copies();
    fill(p + STAGES * warps, stage);
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }

  // Merge the block's warps.
  wait_for_copies<0>();
  __syncthreads();
  __shared__ float shared_most[warps][head_rows];
  __shared__ float shared_sum[warps][head_rows];
  auto* shared_acc = reinterpret_cast<float*>(shared); // [warps][head_rows][D]
  static_assert(warps * head_rows * D * sizeof(float) <=
                shared_values<D, STAGES> * sizeof(__nv_bfloat16));
#pragma unroll
  for (int half = 0; half < HALVES; ++half) {
    const int head = lane / 4 + half * 8;
    float total = sum[half];
    total += __shfl_xor_sync(0xffffffffU, total, 1);
    total += __shfl_xor_sync(0xffffffffU, total, 2);
    if (lane % 4 == 0) {
      shared_most[warp][head] = most[half];
      shared_sum[warp][head] = total;
    }
    auto* to = shared_acc + (warp * head_rows + head) * D + (lane % 4) * 2;
#pragma unroll
    for (int d = 0; d < D / 8; ++d)
      *reinterpret_cast<float2*>(to + d * 8) = make_float2(acc[d][half * 2], acc[d][half * 2 + 1]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < width * D; i += warps * 32) {
    const int g = i / D;
    const int d = i % D;
    float top = -INFINITY;
#pragma unroll
    for (int w = 0; w < warps; ++w)
      top = fmaxf(top, shared_most[w][g]);
    float total = 0;
    float value = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      const float m = shared_most[w][g];
      const float scale = m == -INFINITY ? 0.0F : exp2f(m - top);
      total += scale * shared_sum[w][g];
      value += scale * shared_acc[(w * head_rows + g) * D + d];
    }
    if (splits == 1) {
      out[(row_index * heads + first_head + g) * D + d] = __float2bfloat16(value / total);
    } else {
      const std::size_t head = static_cast<std::size_t>(sequence) * heads + first_head + g;
      float* part = scratch + (head * splits + split) * (D + 2);
      part[d] = value;
      if (d == 0) {
        part[D] = top;
        part[D + 1] = total;
      }
    }
  }
  if (splits == 1)
    return;

  // The block that ends last of the splits sums their parts, in their order.
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned* count = ended + sequence * kv.kv_heads + kv_head;
    last = atomicAdd(count, 1U) == static_cast<unsigned>(splits) - 1;
    if (last)
      *count = 0; // for the next launch
  }
  __syncthreads();
  if (!last)
    return;
  __threadfence();
  for (int i = threadIdx.x; i < width * D; i += warps * 32) {
    const int g = i / D;
    const int d = i % D;
    const std::size_t head = static_cast<std::size_t>(sequence) * heads + first_head + g;
    const float* parts = scratch + head * splits * (D + 2);
    float top = -INFINITY;
    for (int s = 0; s < splits; ++s)
      top = fmaxf(top, __ldcg(parts + s * (D + 2) + D));
    float total = 0;
    float value = 0;
#pragma unroll 4
    for (int s = 0; s < splits; ++s) {
      const float* part = parts + s * (D + 2);
      const float m = __ldcg(part + D);
      const float w = m == -INFINITY ? 0.0F : exp2f(m - top);
      total += w * __ldcg(part + D + 1);
      value += w * __ldcg(part + d);
    }
    out[(row_index * heads + first_head + g) * D + d] = __float2bfloat16(value / total);
  }
}

struct launch {
  const __nv_bfloat16* q;
  int q_stride;
  __nv_bfloat16* out;
  const paged_kv& kv;
  const rope_store* rope;
  const std::int32_t* rows;
  const std::int32_t* lengths;
  int sequences, heads, splits, pages_each;
  bool early;
  float* scratch;
  unsigned* ended;
  cudaStream_t stream;
};

template <int D, int HALVES, int STAGES, bool ROTATE>
void launch_heads(const launch& l, int first, int width) {
  constexpr int bytes = shared_values<D, STAGES> * static_cast<int>(sizeof(__nv_bfloat16));
  static const bool raised = [] {
    HEXGEN_CUDA_CHECK(cudaFuncSetAttribute(decode_kernel<D, HALVES, STAGES, ROTATE>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)raised;
  const float scale_log2 = 1.4426950408889634F / std::sqrt(static_cast<float>(D));
  const dim3 grid(static_cast<unsigned>(l.splits), static_cast<unsigned>(l.kv.kv_heads),
                  static_cast<unsigned>(l.sequences));
  launch_dependent(decode_kernel<D, HALVES, STAGES, ROTATE>, grid, warps * 32, bytes, l.stream, l.q,
                   l.q_stride, l.out, l.kv, ROTATE ? *l.rope : rope_store{}, l.rows, l.lengths,
                   l.heads, first, width, l.pages_each, scale_log2, l.early, l.scratch, l.ended);
}

template <int D, bool ROTATE>
void launch_dim(const launch& l) {
  const int group = l.heads / l.kv.kv_heads;
  // Groups wider than a score tile read K and V again.
  for (int first = 0; first < group; first += 16) {
    const int width = std::min(16, group - first);
    // Few blocks hide little by themselves: small ones leave room for the next kernel's loads.
    const bool few = l.sequences * l.kv.kv_heads * l.splits <= 264;
    if (width <= 8 && few)
      launch_heads<D, 1, 2, ROTATE>(l, first, width);
    else if (width <= 8)
      launch_heads<D, 1, 3, ROTATE>(l, first, width);
    else
      launch_heads<D, 2, 3, ROTATE>(l, first, width);
  }
}

} // namespace

std::size_t decode_scratch_floats(int sequences, int heads, int head_dim) {
  return static_cast<std::size_t>(sequences) * heads * max_kv_splits * (head_dim + 2);
}

void decode_attention(const __nv_bfloat16* q, int q_stride, __nv_bfloat16* out, const paged_kv& kv,
                      const rope_store* rope, const std::int32_t* rows, const std::int32_t* lengths,
                      int sequences, int heads, int splits, int pages_each, bool early,
                      float* scratch, unsigned* ended, cudaStream_t stream) {
  const launch l{q,     q_stride, out,        kv,    rope,    rows,  lengths, sequences,
                 heads, splits,   pages_each, early, scratch, ended, stream};
  switch (kv.head_dim) {
  case 64:
    rope == nullptr ? launch_dim<64, false>(l) : launch_dim<64, true>(l);
    break;
  case 128:
    rope == nullptr ? launch_dim<128, false>(l) : launch_dim<128, true>(l);
    break;
  default:
    throw std::invalid_argument("head_dim " + std::to_string(kv.head_dim) +
                                " is not served by the GPU backend (64 and 128 are)");
  }
}

} // namespace hexgen::compute::cuda
