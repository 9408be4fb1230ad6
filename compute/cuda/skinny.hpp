// Products of few rows on tensor cores: bound by reading the weights once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace hexgen::compute::cuda {

/// The widest batch that skinny() is for: above it cuBLASLt is faster.
inline constexpr int skinny_rows_max = 4;
/// skinny() takes k in multiples of this.
inline constexpr int skinny_k_step = 64;

/// y[m, n] = x[m, k] w[n, k]^T for m <= skinny_rows_max. A row of y depends on its row of x alone.
void skinny(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n, int k,
            cudaStream_t stream);
void skinny(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k,
            cudaStream_t stream);
/// The same with w's rows (gate, up) in turn and out[m, n/2] = silu(gate) * up; n even.
void skinny_swiglu(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* out, int m, int n,
                   int k, cudaStream_t stream);

} // namespace hexgen::compute::cuda
