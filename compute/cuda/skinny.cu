// A block takes 16 rows of w, each of its warps every fourth run of 64 values of them: weights
// arrive in whole 128-byte lines, several runs ahead, in shared memory that is the warp's own.
#include "compute/cuda/launch.cuh"
#include "compute/cuda/skinny.hpp"
#include "compute/cuda/tensor_core.cuh"

namespace hexgen::compute::cuda {
namespace {

constexpr int block_rows = 16;
constexpr int k_splits = 4;
constexpr int run = skinny_k_step; // values of a row in a stage
constexpr int stages = 6;
constexpr int stage_values = block_rows * run;

constexpr int warps = k_splits;
constexpr int shared_bytes =
    warps * stages * stage_values * static_cast<int>(sizeof(__nv_bfloat16));

/// x has up to 8 rows, a tile of the tensor cores. Which values of k meet in one tensor core
/// product does not matter as long as both sides agree: lane t of a quad takes values 8t .. 8t+7 of
/// 32, one 16-byte load.
template <bool SWIGLU, class Y>
__global__ void __launch_bounds__(warps * 32)
    skinny_kernel(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                  Y* __restrict__ y, int m, int n, int k) {
  extern __shared__ __align__(128) __nv_bfloat16 shared[];
  allow_successor();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int first_row = blockIdx.x * block_rows;
  const int runs = k / run;
  __nv_bfloat16* mine = shared + warp * stages * stage_values;

  // Odd rows swap the halves of their line, so that a quarter of a warp reads 32 banks.
  const __nv_bfloat16* from[4];
  int to[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = i * 4 + lane / 8;
    const int chunk = lane % 8;
    const int global_row = min(first_row + row, n - 1);
    from[i] = w + static_cast<std::size_t>(global_row) * k + chunk * 8;
    to[i] = row * run + (chunk ^ ((row & 1) << 2)) * 8;
  }
  auto load = [&](int r, int stage) {
    if (r < runs) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        copy_16(mine + stage * stage_values + to[i], from[i] + r * run);
    }
    commit_copies();
  };
#pragma unroll
  for (int s = 0; s < stages; ++s)
    load(warp + s * k_splits, s); // weights do not depend on the kernel before
  wait_for_predecessor();

  const int g = lane / 4;
  const int t = lane % 4;
  uint4 input[2];
  auto load_input = [&](int r) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      input[half] = g < m && r < runs
                        ? *reinterpret_cast<const uint4*>(x + static_cast<std::size_t>(g) * k +
                                                          r * run + half * 32 + t * 8)
                        : make_uint4(0, 0, 0, 0);
  };
  load_input(warp);
  float acc[4] = {};
  int stage = 0;
  for (int r = warp; r < runs; r += k_splits) {
    wait_for_copies<stages - 1>();
    __syncwarp();
    const uint4 now[2] = {input[0], input[1]};
    load_input(r + k_splits);
    const __nv_bfloat16* weights = mine + stage * stage_values;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int chunk = ((half * 4 + t) ^ ((g & 1) << 2)) * 8;
      const uint4 low = *reinterpret_cast<const uint4*>(weights + g * run + chunk);
      const uint4 high = *reinterpret_cast<const uint4*>(weights + (g + 8) * run + chunk);
      const unsigned first[4] = {low.x, high.x, low.y, high.y};
      const unsigned second[4] = {low.z, high.z, low.w, high.w};
      multiply(acc, first, now[half].x, now[half].y);
      multiply(acc, second, now[half].z, now[half].w);
    }
    __syncwarp(); // all lanes have read the stage
    load(r + stages * k_splits, stage);
    stage = stage + 1 == stages ? 0 : stage + 1;
  }

  // Sum the splits, in their order.
  wait_for_copies<0>();
  __syncthreads();
  constexpr int pitch = block_rows + 1;
  auto* parts = reinterpret_cast<float*>(shared); // [k_splits][8][pitch]
#pragma unroll
  for (int i = 0; i < 4; ++i)
    parts[(warp * 8 + t * 2 + i % 2) * pitch + g + (i / 2) * 8] = acc[i];
  __syncthreads();
  auto sum = [&](int column, int row) {
    float total = 0;
#pragma unroll
    for (int s = 0; s < k_splits; ++s)
      total += parts[(s * 8 + column) * pitch + row];
    return total;
  };
  constexpr int outputs = SWIGLU ? block_rows / 2 : block_rows;
  for (int i = threadIdx.x; i < outputs * m; i += warps * 32) {
    const int column = i / outputs;
    const int at = i % outputs;
    const int to_row = blockIdx.x * outputs + at;
    if constexpr (SWIGLU) {
      if (to_row >= n / 2)
        continue;
      const float gate = sum(column, 2 * at);
      y[static_cast<std::size_t>(column) * (n / 2) + to_row] =
          static_cast<Y>(gate / (1.0F + __expf(-gate)) * sum(column, 2 * at + 1));
    } else if (to_row < n) {
      y[static_cast<std::size_t>(column) * n + to_row] = static_cast<Y>(sum(column, at));
    }
  }
}

template <bool SWIGLU, class Y>
void launch(const __nv_bfloat16* x, const __nv_bfloat16* w, Y* y, int m, int n, int k,
            cudaStream_t stream) {
  static const bool raised = [] {
    HEXGEN_CUDA_CHECK(cudaFuncSetAttribute(
        skinny_kernel<SWIGLU, Y>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
    return true;
  }();
  (void)raised;
  launch_dependent(skinny_kernel<SWIGLU, Y>,
                   dim3(static_cast<unsigned>((n + block_rows - 1) / block_rows)), warps * 32,
                   shared_bytes, stream, x, w, y, m, n, k);
}

} // namespace

void skinny(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n, int k,
            cudaStream_t stream) {
  launch<false>(x, w, y, m, n, k, stream);
}

void skinny(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k,
            cudaStream_t stream) {
  launch<false>(x, w, y, m, n, k, stream);
}

void skinny_swiglu(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* out, int m, int n,
                   int k, cudaStream_t stream) {
  launch<true>(x, w, out, m, n, k, stream);
}

} // namespace hexgen::compute::cuda
