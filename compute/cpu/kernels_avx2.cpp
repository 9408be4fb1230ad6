// The kernels for AVX2 with FMA.
#include "compute/cpu/attention_kernels.hpp"
#include "compute/cpu/kernel_levels.hpp"
#include "compute/cpu/level_avx2.hpp"
#include "compute/cpu/quantised_product.hpp"
#include "compute/cpu/vector_kernels.hpp"

namespace hexgen::compute {

const kernel_table& kernels_avx2() {
  using level = level_avx2;
  static const kernel_table table{"avx2",          multiply<level, 4>, normalise<level>,
                                  quantise<level>, gate<level>,        add<level>,
                                  rotate<level>,   store_kv<level>,    attend<level>};
  return table;
}

} // namespace hexgen::compute
