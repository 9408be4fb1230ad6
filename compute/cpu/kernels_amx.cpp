// The kernels for AVX-512 with VNNI and AMX's byte tiles.
#include "compute/cpu/attention_kernels.hpp"
#include "compute/cpu/kernel_levels.hpp"
#include "compute/cpu/level_amx.hpp"
#include "compute/cpu/quantised_product.hpp"
#include "compute/cpu/vector_kernels.hpp"

namespace hexgen::compute {

namespace {

void multiply_tiles(const product& p, int group_begin, int group_end, int tokens) {
  if (tokens < tile_tokens || !p.weights.quantised())
    return multiply<level_vnni, tile_tokens>(p, group_begin, group_end, tokens);
  const level_amx::tile_session session(p);
  multiply<level_amx, 8 * tile_tokens>(p, group_begin, group_end, tokens);
}

} // namespace

const kernel_table& kernels_amx() {
  using level = level_amx;
  static const kernel_table table{"amx",           multiply_tiles,  normalise<level>,
                                  quantise<level>, gate<level>,     add<level>,
                                  rotate<level>,   store_kv<level>, attend<level>};
  return table;
}

} // namespace hexgen::compute
