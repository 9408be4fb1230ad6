// Products of few rows on tensor cores: bound by reading the weights once.
#pragma once

#include "compute/cuda/kernels.hpp"
#include "compute/cuda/weight_matrix.hpp"

#include <cuda_runtime_api.h>

namespace hexgen::compute::cuda {

/// What bf16 products of more than 8 rows leave to each other's blocks.
struct shared_sums {
  int blocks = 0;            // that compute at once; 0: the GPU has no such products
  float* parts = nullptr;    // [shared_sum_floats(blocks)]
  unsigned* ended = nullptr; // [rows / 64 of the tallest matrix] zero before and after
};
[[nodiscard]] std::size_t shared_sum_floats(int blocks);
/// Whether the current device has them: compute capability 9.0.
[[nodiscard]] bool has_broad_products();

/// The widest batch that skinny() is for, 0 when it does not take the matrix. Above it cuBLASLt is
/// faster; with e4m3 and int4, bringing the matrix to bf16 for cuBLASLt is.
[[nodiscard]] int skinny_rows_max(const weight_matrix& w, const shared_sums& scratch);
inline constexpr int widest_few_rows = 32; // of any matrix

/// What x's rows are still to be divided by: the root of their mean square plus epsilon.
struct pending_norm {
  const float* squares = nullptr; // [m][columns / 16] sums of squares; nullptr: nothing
  float epsilon = 0;
};

/// y[m, rows] = x[m, columns] w^T for m <= skinny_rows_max(w, scratch). A row of y depends on its
/// row of x alone.
void skinny(const __nv_bfloat16* x, const weight_matrix& w, __nv_bfloat16* y, int m,
            const pending_norm& norm, const shared_sums& scratch, cudaStream_t stream);
void skinny(const __nv_bfloat16* x, const weight_matrix& w, float* y, int m,
            const pending_norm& norm, const shared_sums& scratch, cudaStream_t stream);
/// The same with w's rows (gate, up) in turn and out[m, rows/2] = silu(gate) * up; rows even.
void skinny_swiglu(const __nv_bfloat16* x, const weight_matrix& w, __nv_bfloat16* out, int m,
                   const pending_norm& norm, const shared_sums& scratch, cudaStream_t stream);

/// to.hidden[m, rows] += x w^T, and half of the norm behind it; rows a multiple of 16.
void skinny_add(const __nv_bfloat16* x, const weight_matrix& w, const residual& to, int m,
                const shared_sums& scratch, cudaStream_t stream);

} // namespace hexgen::compute::cuda
