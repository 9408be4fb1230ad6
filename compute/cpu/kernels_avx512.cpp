// The kernels for AVX-512 F, BW, DQ and VL.
#include "compute/cpu/attention_kernels.hpp"
#include "compute/cpu/kernel_levels.hpp"
#include "compute/cpu/level_avx512.hpp"
#include "compute/cpu/quantised_product.hpp"
#include "compute/cpu/vector_kernels.hpp"

namespace hexgen::compute {

const kernel_table& kernels_avx512() {
  using level = level_avx512;
  static const kernel_table table{"avx512",        multiply<level, 8>, normalise<level>,
                                  quantise<level>, gate<level>,        add<level>,
                                  rotate<level>,   store_kv<level>,    attend<level>};
  return table;
}

} // namespace hexgen::compute
