// The float32 reference: the kernels over plain arrays. It needs no quantised product, because its
// weights are dequantised when they are loaded.
#include "compute/cpu/attention_kernels.hpp"
#include "compute/cpu/kernels.hpp"
#include "compute/cpu/lanes_plain.hpp"
#include "compute/cpu/product_kernels.hpp"
#include "compute/cpu/vector_kernels.hpp"

namespace hexgen::compute {

namespace {

void multiply(const product& p, int group_begin, int group_end, int tokens) {
  multiply_floats<lanes_plain, 4>(p, group_begin, group_end, tokens);
}

void no_quantisation(const float*, int, std::byte*, block_meta*) {}

} // namespace

const kernel_table& reference_kernels() {
  static const kernel_table table{
      "reference",        multiply,         normalise<lanes_plain>, no_quantisation,
      gate<lanes_plain>,  add<lanes_plain>, rotate<lanes_plain>,    store_kv<lanes_plain>,
      attend<lanes_plain>};
  return table;
}

} // namespace hexgen::compute
