// Products of few rows on tensor cores: bound by reading the weights once.
#pragma once

#include "compute/cuda/kernels.hpp"
#include "compute/cuda/weight_matrix.hpp"

#include <cuda_runtime_api.h>

namespace hexgen::compute::cuda {

/// The widest batch that skinny() is for, 0 when it does not take the matrix. Above it cuBLASLt is
/// faster; with e4m3 and int4, bringing the matrix to bf16 for cuBLASLt is.
[[nodiscard]] int skinny_rows_max(const weight_matrix& w);
inline constexpr std::size_t widest_few_rows = 32; // of any matrix

/// What x's rows are still to be divided by: the root of their mean square plus epsilon.
struct pending_norm {
  const float* squares = nullptr; // [m][columns / 16] sums of squares; nullptr: nothing
  float epsilon = 0;
};

/// y[m, rows] = x[m, columns] w^T for m <= skinny_rows_max(w). A row of y depends on its row of x
/// alone.
void skinny(const __nv_bfloat16* x, const weight_matrix& w, __nv_bfloat16* y, int m,
            const pending_norm& norm, cudaStream_t stream);
void skinny(const __nv_bfloat16* x, const weight_matrix& w, float* y, int m,
            const pending_norm& norm, cudaStream_t stream);
/// The same with w's rows (gate, up) in turn and out[m, rows/2] = silu(gate) * up; rows even.
void skinny_swiglu(const __nv_bfloat16* x, const weight_matrix& w, __nv_bfloat16* out, int m,
                   const pending_norm& norm, cudaStream_t stream);

/// to.hidden[m, rows] += x w^T, and half of the norm behind it; rows a multiple of 16.
void skinny_add(const __nv_bfloat16* x, const weight_matrix& w, const residual& to, int m,
                cudaStream_t stream);

} // namespace hexgen::compute::cuda
