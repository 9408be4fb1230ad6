// The float32 reference: weights are dequantised when they are loaded, activations are not
// quantised. It runs on the lanes that every machine has.
#include "compute/cpu/attention_kernels.hpp"
#include "compute/cpu/kernels.hpp"
#include "compute/cpu/lanes_avx2.hpp"
#include "compute/cpu/product_kernels.hpp"
#include "compute/cpu/vector_kernels.hpp"

namespace hexgen::compute {

namespace {

void no_quantisation(const float*, int, code_bits, std::byte*, block_meta*) {}

} // namespace

const kernel_table& reference_kernels() {
  using lanes = lanes_avx2;
  static const kernel_table table{"reference",      multiply_floats<lanes, 4>,
                                  normalise<lanes>, no_quantisation,
                                  gate<lanes>,      add<lanes>,
                                  rotate<lanes>,    store_kv<lanes>,
                                  attend<lanes>};
  return table;
}

} // namespace hexgen::compute
