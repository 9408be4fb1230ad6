// A matrix on the device, as the products read it.
#pragma once

#include "compute/gpu_weights.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace hexgen::compute::cuda {

/// [rows][columns], row-major: bf16; e4m3 (4 exponent and 3 fraction bits) times a power of two a
/// row, a product that has few enough bits to be a bf16 value exactly; or the codes of
/// compute/int4_groups.hpp with their scales and minima.
struct weight_matrix {
  gpu_weights type = gpu_weights::bf16;
  void* values = nullptr;
  void* scales = nullptr; // float [rows], or half2 [rows][columns / int4_group]; bf16: nullptr
  int rows = 0, columns = 0;

  [[nodiscard]] __nv_bfloat16* bf16() const { return static_cast<__nv_bfloat16*>(values); }
  [[nodiscard]] std::uint8_t* bytes() const { return static_cast<std::uint8_t*>(values); }
  [[nodiscard]] float* row_scales() const { return static_cast<float*>(scales); }
  [[nodiscard]] __half2* groups() const { return static_cast<__half2*>(scales); }
  [[nodiscard]] std::size_t row_bytes() const {
    const auto all = static_cast<std::size_t>(columns);
    return type == gpu_weights::bf16 ? 2 * all : type == gpu_weights::fp8 ? all : all / 2;
  }
  /// Of scales.
  [[nodiscard]] std::size_t row_scale_bytes() const {
    return type == gpu_weights::bf16 ? 0
           : type == gpu_weights::fp8
               ? sizeof(float)
               : static_cast<std::size_t>(columns) / int4_group * sizeof(__half2);
  }
};

/// Brings rows of bf16 [rows][columns] to e4m3: to rows first_row, first_row + every, ... of `to`.
/// A row's scale is the least power of two that keeps its largest value within e4m3's 448.
void quantize_rows(const __nv_bfloat16* from, int rows, const weight_matrix& to, int first_row,
                   int every, cudaStream_t stream);
/// Random codes to all rows of an int4 matrix: values of about +-scale.
void fill_random_int4(const weight_matrix& to, float scale, std::uint64_t seed,
                      cudaStream_t stream);
/// All of an e4m3 matrix as bf16, exactly, or of an int4 one, rounded.
void dequantize(const weight_matrix& from, __nv_bfloat16* to, cudaStream_t stream);

} // namespace hexgen::compute::cuda
