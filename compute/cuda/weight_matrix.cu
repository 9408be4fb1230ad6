#include "compute/cuda/e4m3.cuh"
#include "compute/cuda/launch.cuh"
#include "compute/cuda/weight_matrix.hpp"

#include <cuda_fp8.h>

namespace hexgen::compute::cuda {
namespace {

constexpr int threads = 256;

/// A block a row.
__global__ void quantize_kernel(const __nv_bfloat16* __restrict__ from,
                                std::uint8_t* __restrict__ to, float* __restrict__ scales,
                                int columns, int first_row, int every) {
  allow_successor();
  wait_for_predecessor();
  const auto* row = from + static_cast<std::size_t>(blockIdx.x) * columns;
  float largest = 0;
  for (int i = threadIdx.x; i < columns; i += threads)
    largest = fmaxf(largest, fabsf(__bfloat162float(row[i])));
  __shared__ float shared[threads];
  shared[threadIdx.x] = largest;
  __syncthreads();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half)
      shared[threadIdx.x] = fmaxf(shared[threadIdx.x], shared[threadIdx.x + half]);
    __syncthreads();
  }
  largest = shared[0];
  int exponent = 0;
  const float fraction = frexpf(largest / 448.0F, &exponent); // in [0.5, 1)
  if (fraction == 0.5F)
    --exponent;
  const float scale = largest > 0 ? ldexpf(1.0F, exponent) : 1.0F;
  const std::size_t at = static_cast<std::size_t>(first_row) + blockIdx.x * every;
  if (threadIdx.x == 0)
    scales[at] = scale;
  auto* out = to + at * columns;
  for (int i = threadIdx.x; i < columns; i += threads)
    out[i] = __nv_cvt_float_to_fp8(__bfloat162float(row[i]) / scale, __NV_SATFINITE, __NV_E4M3);
}

/// A block a row; columns a multiple of 8.
__global__ void dequantize_kernel(const std::uint8_t* __restrict__ from,
                                  const float* __restrict__ scales, int columns,
                                  __nv_bfloat16* __restrict__ to) {
  allow_successor();
  wait_for_predecessor();
  const std::size_t row = blockIdx.x;
  const auto* in = reinterpret_cast<const uint2*>(from + row * columns);
  auto* out = reinterpret_cast<uint4*>(to + row * columns);
  const __nv_bfloat162 scale = __float2bfloat162_rn(scales[row]);
  auto pair = [&](unsigned four, int half) {
    const unsigned value = e4m3_pair(four, half);
    const __nv_bfloat162 scaled = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&value), scale);
    return *reinterpret_cast<const unsigned*>(&scaled);
  };
  for (int i = threadIdx.x; i < columns / 8; i += threads) {
    const uint2 v = in[i];
    out[i] = make_uint4(pair(v.x, 0), pair(v.x, 1), pair(v.y, 0), pair(v.y, 1));
  }
}

} // namespace

void quantize_rows(const __nv_bfloat16* from, int rows, const weight_matrix& to, int first_row,
                   int every, cudaStream_t stream) {
  launch_dependent(quantize_kernel, dim3(static_cast<unsigned>(rows)), threads, 0, stream, from,
                   to.e4m3(), to.scales, to.columns, first_row, every);
}

void dequantize(const weight_matrix& from, __nv_bfloat16* to, cudaStream_t stream) {
  launch_dependent(dequantize_kernel, dim3(static_cast<unsigned>(from.rows)), threads, 0, stream,
                   from.e4m3(), from.scales, from.columns, to);
}

} // namespace hexgen::compute::cuda
