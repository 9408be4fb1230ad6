// The kernels for AVX-512 with VNNI.
#include "compute/cpu/attention_kernels.hpp"
#include "compute/cpu/kernel_levels.hpp"
#include "compute/cpu/level_avx512.hpp"
#include "compute/cpu/quantised_product.hpp"
#include "compute/cpu/vector_kernels.hpp"

namespace hexgen::compute {

const kernel_table& kernels_vnni() {
  using level = level_vnni;
  static const kernel_table table{"vnni",          multiply<level, 16>, normalise<level>,
                                  quantise<level>, gate<level>,         add<level>,
                                  rotate<level>,   store_kv<level>,     attend<level>};
  return table;
}

} // namespace hexgen::compute
