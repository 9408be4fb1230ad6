// e4m3 to bf16 without a table.
#pragma once

#include <cuda_bf16.h>

namespace hexgen::compute::cuda {

/// Values 2 half and 2 half + 1 of four e4m3 values. The exponent's four bits land in the low ones
/// of bf16's eight, which makes the value 2^120 times too small, subnormal ones included.
__device__ __forceinline__ unsigned e4m3_pair(unsigned four, int half) {
  const unsigned spread = __byte_perm(four, 0, half == 0 ? 0x1404 : 0x3424);
  const unsigned small = (spread & 0x80008000U) | ((spread & 0x7f007f00U) >> 4);
  const unsigned factor = 0x7b807b80U; // 2^120 twice
  const __nv_bfloat162 value = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&small),
                                       *reinterpret_cast<const __nv_bfloat162*>(&factor));
  return *reinterpret_cast<const unsigned*>(&value);
}

} // namespace hexgen::compute::cuda
