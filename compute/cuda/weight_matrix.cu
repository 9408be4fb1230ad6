#include "compute/cuda/e4m3.cuh"
#include "compute/cuda/launch.cuh"
#include "compute/cuda/weight_matrix.hpp"

#include <cuda_fp8.h>

#include <algorithm>

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

/// A block a row, a thread a word of codes: 8 values of a group.
__global__ void dequantize_int4_kernel(const unsigned* __restrict__ from,
                                       const __half2* __restrict__ groups, int columns,
                                       __nv_bfloat16* __restrict__ to) {
  allow_successor();
  wait_for_predecessor();
  constexpr int half_line = int4_line / 2;
  const std::size_t row = blockIdx.x;
  const unsigned* in = from + row * (columns / 8);
  const __half2* scales = groups + row * (columns / int4_group);
  auto* out = reinterpret_cast<uint4*>(to + row * columns);
  for (int i = threadIdx.x; i < columns / 8; i += threads) {
    const int half = i / (half_line / 8);
    const int piece = i % (half_line / 8) / 4;
    const int j = i % 4;
    const float2 scale = __half22float2(scales[half * 4 + j]);
    const unsigned word = in[i];
    unsigned pairs[4];
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const auto value = [&](int shift) {
        return scale.x * static_cast<float>((word >> shift) & 15U) + scale.y;
      };
      const __nv_bfloat162 pair = __floats2bfloat162_rn(value(4 * p), value(4 * p + 16));
      pairs[p] = *reinterpret_cast<const unsigned*>(&pair);
    }
    out[half * (half_line / 8) + j * 4 + piece] =
        make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }
}

__global__ void fill_int4_kernel(unsigned* __restrict__ words, std::size_t count,
                                 __half2* __restrict__ groups, __half2 scale, std::uint64_t seed) {
  allow_successor();
  wait_for_predecessor();
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    std::uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15ULL; // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    words[i] = static_cast<unsigned>((z ^ (z >> 31)) >> 32);
    if (i % 4 == 0) // a word is 8 codes, a group 32
      groups[i / 4] = scale;
  }
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
                   to.bytes(), to.row_scales(), to.columns, first_row, every);
}

void fill_random_int4(const weight_matrix& to, float scale, std::uint64_t seed,
                      cudaStream_t stream) {
  const std::size_t words = static_cast<std::size_t>(to.rows) * to.columns / 8;
  const auto blocks = static_cast<unsigned>(std::min<std::size_t>((words + 255) / 256, 4096));
  launch_dependent(fill_int4_kernel, dim3(blocks), 256, 0, stream,
                   reinterpret_cast<unsigned*>(to.bytes()), words, to.groups(),
                   __floats2half2_rn(2 * scale / 15, -scale), seed);
}

void dequantize(const weight_matrix& from, __nv_bfloat16* to, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(from.rows));
  if (from.type == gpu_weights::int4)
    launch_dependent(dequantize_int4_kernel, grid, threads, 0, stream,
                     reinterpret_cast<const unsigned*>(from.bytes()), from.groups(), from.columns,
                     to);
  else
    launch_dependent(dequantize_kernel, grid, threads, 0, stream, from.bytes(), from.row_scales(),
                     from.columns, to);
}

} // namespace hexgen::compute::cuda
