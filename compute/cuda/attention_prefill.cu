// Prefill attention on tensor cores: a block owns 128 queries of one head and walks the keys in
// tiles of 64, scores and weights never leaving registers (FlashAttention-2, Dao 2023). A warp has
// 32 queries, so that each key and value that it reads from shared memory meets two tiles of 16.
#include "compute/cuda/attention.hpp"
#include "compute/cuda/error.hpp"
#include "compute/cuda/tensor_core.cuh"

#include <cmath>
#include <stdexcept>
#include <string>

namespace hexgen::compute::cuda {
namespace {

constexpr int page = 16;
constexpr int tile = 64;  // keys of a tile
constexpr int groups = 2; // of 16 queries, a warp
constexpr int threads = 128;
static_assert(query_tile_rows == threads / 32 * groups * 16);

/// One instruction; what would be denormal is 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <int D>
__global__ void __launch_bounds__(threads, 2)
    prefill_kernel(const __nv_bfloat16* __restrict__ q, int q_stride,
                   __nv_bfloat16* __restrict__ out, paged_kv kv, const query_run* __restrict__ runs,
                   const query_tile* __restrict__ tiles, int heads, float scale_log2) {
  extern __shared__ __align__(16) __nv_bfloat16 shared[];
  __nv_bfloat16* shared_q = shared;
  __nv_bfloat16* shared_k = shared + query_tile_rows * D; // two stages
  __nv_bfloat16* shared_v = shared_k + 2 * tile * D;      // two stages
  constexpr int chunks = D / 8;

  // The last tiles have the most keys: they start first, of all heads.
  const query_tile mine = tiles[gridDim.y - 1 - blockIdx.y];
  const query_run run = runs[mine.run];
  const int head = blockIdx.x;
  const int kv_head = head / (heads / kv.kv_heads);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int first = mine.index * query_tile_rows; // within the run
  const int rows = min(query_tile_rows, run.rows - first);
  const int keys = run.position + first + rows; // attended at most
  const int key_tiles = (keys + tile - 1) / tile;
  const std::int32_t* table = kv.tables + static_cast<std::size_t>(run.table) * kv.table_stride;
  const std::size_t kv_row = static_cast<std::size_t>(kv.kv_heads) * D;

  auto load_keys = [&](int t, int stage) {
    for (int i = threadIdx.x; i < tile * chunks; i += threads) {
      const int row = i / chunks;
      const int chunk = i % chunks;
      const int position = min(t * tile + row, keys - 1);
      const std::size_t from =
          (static_cast<std::size_t>(table[position / page]) * page + position % page) * kv_row +
          static_cast<std::size_t>(kv_head) * D + chunk * 8;
      copy_16(shared_k + stage * tile * D + at<D>(row, chunk), kv.k + from);
      copy_16(shared_v + stage * tile * D + at<D>(row, chunk), kv.v + from);
    }
  };

  for (int i = threadIdx.x; i < query_tile_rows * chunks; i += threads) {
    const int row = i / chunks;
    const int chunk = i % chunks;
    const auto* from =
        q + static_cast<std::size_t>(run.first_row + first + min(row, rows - 1)) * q_stride +
        static_cast<std::size_t>(head) * D + chunk * 8;
    copy_16(shared_q + at<D>(row, chunk), from);
  }
  load_keys(0, 0);
  commit_copies();

  float acc[groups][D / 8][4] = {};
  float most[groups][2];
  float sum[groups][2] = {};
#pragma unroll
  for (int g = 0; g < groups; ++g)
    most[g][0] = most[g][1] = -INFINITY;
  // This lane's rows: row_low, row_low + 8, and the same 16 further for the next group.
  const int row_low = warp * 16 * groups + lane / 4;
  const int last_seen = run.position + first + (warp + 1) * 16 * groups - 1; // by this warp's last

  for (int t = 0; t < key_tiles; ++t) {
    const int stage = t & 1;
    if (t + 1 < key_tiles)
      load_keys(t + 1, stage ^ 1);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    if (t * tile <= last_seen) {
      const __nv_bfloat16* k = shared_k + stage * tile * D;
      const __nv_bfloat16* v = shared_v + stage * tile * D;

      float score[groups][tile / 8][4] = {};
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        unsigned query[groups][4];
#pragma unroll
        for (int g = 0; g < groups; ++g)
          load_matrices(query[g],
                        shared_q + at<D>((warp * groups + g) * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
        for (int n = 0; n < tile / 16; ++n) {
          unsigned b[4]; // keys n*16..+8 and +8..+16, each two halves of 16 values
          load_matrices(b, k + at<D>(n * 16 + (lane / 16) * 8 + lane % 8, 2 * d + (lane / 8) % 2));
#pragma unroll
          for (int g = 0; g < groups; ++g) {
            multiply(score[g][2 * n], query[g], b[0], b[1]);
            multiply(score[g][2 * n + 1], query[g], b[2], b[3]);
          }
        }
      }

      const bool edge = (t + 1) * tile > run.position + first + warp * 16 * groups; // keys hidden
#pragma unroll
      for (int g = 0; g < groups; ++g) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          // The last key that this row attends to.
          const int last_key = run.position + first + row_low + g * 16 + half * 8;
          float top = most[g][half];
          if (edge) {
#pragma unroll
            for (int n = 0; n < tile / 8; ++n)
#pragma unroll
              for (int i = 0; i < 2; ++i)
                if (t * tile + n * 8 + (lane % 4) * 2 + i > last_key)
                  score[g][n][half * 2 + i] = -INFINITY;
          }
#pragma unroll
          for (int n = 0; n < tile / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
              top = fmaxf(top, score[g][n][half * 2 + i]);
          top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 1));
          top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 2));
          // Key 0 is seen by every row and comes in the first tile, so top is finite from there on.
          const float keep = exp2_fast((most[g][half] - top) * scale_log2);
          const float offset = -top * scale_log2;
          most[g][half] = top;
          float part = 0;
#pragma unroll
          for (int n = 0; n < tile / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              float& s = score[g][n][half * 2 + i];
              s = exp2_fast(fmaf(s, scale_log2, offset));
              part += s;
            }
          }
          sum[g][half] = sum[g][half] * keep + part;
#pragma unroll
          for (int d = 0; d < D / 8; ++d) {
            acc[g][d][half * 2] *= keep;
            acc[g][d][half * 2 + 1] *= keep;
          }
        }
      }

#pragma unroll
      for (int n = 0; n < tile / 16; ++n) {
        unsigned weight[groups][4];
#pragma unroll
        for (int g = 0; g < groups; ++g)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            weight[g][i] =
                pack(score[g][2 * n + i / 2][i % 2 * 2], score[g][2 * n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          unsigned b[4];
          load_matrices_transposed(b, v + at<D>(n * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
          for (int g = 0; g < groups; ++g) {
            multiply(acc[g][2 * d], weight[g], b[0], b[1]);
            multiply(acc[g][2 * d + 1], weight[g], b[2], b[3]);
          }
        }
      }
    }
    __syncthreads(); // before the next loads overwrite this stage's partner
  }

#pragma unroll
  for (int g = 0; g < groups; ++g) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[g][half];
      total += __shfl_xor_sync(0xffffffffU, total, 1);
      total += __shfl_xor_sync(0xffffffffU, total, 2);
      const int row = row_low + g * 16 + half * 8;
      if (row >= rows)
        continue;
      auto* to = out + (static_cast<std::size_t>(run.first_row + first + row) * heads + head) * D;
#pragma unroll
      for (int d = 0; d < D / 8; ++d)
        *reinterpret_cast<unsigned*>(to + d * 8 + (lane % 4) * 2) =
            pack(acc[g][d][half * 2] / total, acc[g][d][half * 2 + 1] / total);
    }
  }
}

template <int D>
void launch(const __nv_bfloat16* q, int q_stride, __nv_bfloat16* out, const paged_kv& kv,
            const query_run* runs, const query_tile* tiles, int tile_count, int heads,
            cudaStream_t stream) {
  constexpr int bytes = (query_tile_rows + 4 * tile) * D * static_cast<int>(sizeof(__nv_bfloat16));
  static const bool raised = [] {
    HEXGEN_CUDA_CHECK(cudaFuncSetAttribute(prefill_kernel<D>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)raised;
  const float scale_log2 = 1.4426950408889634F / std::sqrt(static_cast<float>(D));
  prefill_kernel<D>
      <<<dim3(static_cast<unsigned>(heads), static_cast<unsigned>(tile_count)), threads, bytes,
         stream>>>(q, q_stride, out, kv, runs, tiles, heads, scale_log2);
}

} // namespace

void prefill_attention(const __nv_bfloat16* q, int q_stride, __nv_bfloat16* out, const paged_kv& kv,
                       const query_run* runs, const query_tile* tiles, int tile_count, int heads,
                       cudaStream_t stream) {
  if (tile_count == 0)
    return;
  if (kv.head_dim == 64)
    launch<64>(q, q_stride, out, kv, runs, tiles, tile_count, heads, stream);
  else if (kv.head_dim == 128)
    launch<128>(q, q_stride, out, kv, runs, tiles, tile_count, heads, stream);
  else
    throw std::invalid_argument("head_dim " + std::to_string(kv.head_dim) +
                                " is not served by the GPU backend (64 and 128 are)");
  HEXGEN_CUDA_CHECK(cudaGetLastError());
}

} // namespace hexgen::compute::cuda
