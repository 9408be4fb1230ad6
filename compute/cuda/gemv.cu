// A warp takes two rows of w: every load is 512 contiguous bytes of one row. Tensor cores do not
// help here (a fragment's 64-byte pieces of 16 rows read memory a third slower).
#include "compute/cuda/gemv.hpp"
#include "compute/cuda/launch.cuh"

namespace hexgen::compute::cuda {
namespace {

constexpr int warps = 4;
constexpr int rows = 2;
constexpr int unroll = 4;
constexpr int run = 256; // values that a warp's lanes cover at once

struct alignas(16) bf16x8 {
  __nv_bfloat162 pair[4];
};

__device__ __forceinline__ bf16x8 load_once(const __nv_bfloat16* p) {
  // Weights are read once a step: they need not push x out of the cache.
  const uint4 v = __ldcs(reinterpret_cast<const uint4*>(p));
  return *reinterpret_cast<const bf16x8*>(&v);
}

template <int M, bool SWIGLU, class Y>
__global__ void __launch_bounds__(warps * 32)
    gemv_kernel(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                Y* __restrict__ y, int n, int k) {
  allow_successor();
  const int pair = blockIdx.x * warps + threadIdx.x / 32;
  const int row = pair * rows;
  const int lane = threadIdx.x % 32;
  const bool mine = row < n;
  const __nv_bfloat16* weights = w + static_cast<std::size_t>(mine ? row : 0) * k;
  float sum[rows][M] = {};

  bf16x8 ahead[unroll][rows];
  auto fetch = [&](int at) {
#pragma unroll
    for (int u = 0; u < unroll; ++u)
      if (at + u * run < k) {
#pragma unroll
        for (int r = 0; r < rows; ++r)
          ahead[u][r] = load_once(weights + static_cast<std::size_t>(r) * k + at + u * run);
      }
  };
  int at = lane * 8;
  fetch(at); // weights do not depend on the kernel before
  wait_for_predecessor();
  if (!mine)
    return;
  for (; at < k; at += unroll * run) {
    if (at != lane * 8)
      fetch(at);
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
      const int where = at + u * run;
      if (where >= k)
        break;
#pragma unroll
      for (int m = 0; m < M; ++m) {
        const bf16x8 input =
            *reinterpret_cast<const bf16x8*>(x + static_cast<std::size_t>(m) * k + where);
#pragma unroll
        for (int r = 0; r < rows; ++r)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 a = __bfloat1622float2(ahead[u][r].pair[i]);
            const float2 b = __bfloat1622float2(input.pair[i]);
            sum[r][m] = fmaf(a.x, b.x, sum[r][m]);
            sum[r][m] = fmaf(a.y, b.y, sum[r][m]);
          }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int r = 0; r < rows; ++r)
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2)
        sum[r][m] += __shfl_xor_sync(0xffffffffU, sum[r][m], offset);
    if (lane != 0)
      continue;
    if constexpr (SWIGLU) {
      const float gate = sum[0][m];
      y[static_cast<std::size_t>(m) * (n / 2) + pair] =
          static_cast<Y>(gate / (1.0F + __expf(-gate)) * sum[1][m]);
    } else {
      y[static_cast<std::size_t>(m) * n + row] = static_cast<Y>(sum[0][m]);
      y[static_cast<std::size_t>(m) * n + row + 1] = static_cast<Y>(sum[1][m]);
    }
  }
}

template <bool SWIGLU, class Y>
void launch(const __nv_bfloat16* x, const __nv_bfloat16* w, Y* y, int m, int n, int k,
            cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((n / rows + warps - 1) / warps));
  constexpr unsigned block = warps * 32;
  switch (m) {
  case 1:
    launch_dependent(gemv_kernel<1, SWIGLU, Y>, grid, block, 0, stream, x, w, y, n, k);
    break;
  case 2:
    launch_dependent(gemv_kernel<2, SWIGLU, Y>, grid, block, 0, stream, x, w, y, n, k);
    break;
  case 3:
    launch_dependent(gemv_kernel<3, SWIGLU, Y>, grid, block, 0, stream, x, w, y, n, k);
    break;
  default:
    launch_dependent(gemv_kernel<4, SWIGLU, Y>, grid, block, 0, stream, x, w, y, n, k);
    break;
  }
}

} // namespace

void gemv(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n, int k,
          cudaStream_t stream) {
  launch<false>(x, w, y, m, n, k, stream);
}

void gemv(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k,
          cudaStream_t stream) {
  launch<false>(x, w, y, m, n, k, stream);
}

void gemv_swiglu(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* out, int m, int n,
                 int k, cudaStream_t stream) {
  launch<true>(x, w, out, m, n, k, stream);
}

} // namespace hexgen::compute::cuda
