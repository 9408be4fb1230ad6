// y = x W^T by cuBLASLt, its algorithm timed once per shape.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

namespace hexgen::compute::cuda {

/// Loads libcublasLt at run time, so that a program built with CUDA starts where it is absent.
/// One per executor; not thread-safe.
class gemm {
public:
  /// Throws std::runtime_error when libcublasLt cannot be loaded.
  explicit gemm(std::size_t workspace_bytes = 64U << 20);
  ~gemm();
  gemm(const gemm&) = delete;
  gemm& operator=(const gemm&) = delete;

  /// y[m, n] = x[m, k] w[n, k]^T, bf16 in, float32 sums. All row-major and contiguous but y, whose
  /// rows are `y_stride` apart. The first call for (m, n, k, type) times the library's candidates
  /// on `stream` (not while it is being captured) and keeps the fastest, also for later starts.
  void run(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n, int k,
           int y_stride, cudaStream_t stream);
  void run(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k,
           int y_stride, cudaStream_t stream);
  /// false: the library's first choice, the same on every start (`--deterministic`).
  void set_timed(bool timed);

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace hexgen::compute::cuda
