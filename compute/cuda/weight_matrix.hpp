// A matrix on the device, as the products read it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace hexgen::compute::cuda {

/// [rows][columns], row-major: bf16, or e4m3 (4 exponent and 3 fraction bits) times a power of two
/// a row. Such a product has few enough bits to be a bf16 value exactly.
struct weight_matrix {
  void* values = nullptr;
  float* scales = nullptr; // [rows], or nullptr: bf16
  int rows = 0, columns = 0;

  [[nodiscard]] __nv_bfloat16* bf16() const { return static_cast<__nv_bfloat16*>(values); }
  [[nodiscard]] std::uint8_t* e4m3() const { return static_cast<std::uint8_t*>(values); }
  [[nodiscard]] std::size_t row_bytes() const {
    return static_cast<std::size_t>(columns) * (scales == nullptr ? 2 : 1);
  }
};

/// Brings rows of bf16 [rows][columns] to e4m3: to rows first_row, first_row + every, ... of `to`.
/// A row's scale is the least power of two that keeps its largest value within e4m3's 448.
void quantize_rows(const __nv_bfloat16* from, int rows, const weight_matrix& to, int first_row,
                   int every, cudaStream_t stream);
/// All of an e4m3 matrix as bf16, exactly.
void dequantize(const weight_matrix& from, __nv_bfloat16* to, cudaStream_t stream);

} // namespace hexgen::compute::cuda
