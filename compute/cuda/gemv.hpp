// Products of very few rows: bound by reading the weights once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace hexgen::compute::cuda {

/// The widest batch that the matrix-vector kernels serve; above it cuBLASLt is faster.
inline constexpr int gemv_rows_max = 4;

/// y[m, n] = x[m, k] w[n, k]^T for m <= gemv_rows_max; n even, k a multiple of 8.
void gemv(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n, int k,
          cudaStream_t stream);
void gemv(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k,
          cudaStream_t stream);
/// The same with w's rows (gate, up) in turn and out[m, n/2] = silu(gate) * up.
void gemv_swiglu(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* out, int m, int n,
                 int k, cudaStream_t stream);

} // namespace hexgen::compute::cuda
