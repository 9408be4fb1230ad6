// The numeric kernels of one instruction-set level, behind function pointers. Every level gives the
// same bits: the order of operations is fixed per output element (docs/design.md, Numerics).
#pragma once

#include "compute/cpu/kv_layout.hpp"
#include "compute/cpu/matrix.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace hexgen::compute {

/// How finely inputs are quantised: in 12 bits where they meet four-bit weights alone, whose room
/// in a byte lets a matrix unit multiply both bytes of a code at once (level_amx.hpp).
enum class code_bits : std::uint8_t { twelve, sixteen };

/// One block of 32 quantised activations beside its codes: value = scale * code.
struct block_meta {
  float scale;       // the largest magnitude / the largest code
  float sum;         // scale * (head + tail): what a minimum is multiplied with
  std::int32_t head; // sum of codes 0-15
  std::int32_t tail; // sum of codes 16-31
};

inline constexpr std::size_t block_code_bytes = 64; // two bytes for each of 32 activations
inline constexpr int tile_tokens = 16;              // tokens whose codes lie side by side

/// Where `block` of `token` lies among the codes and metas of inputs of `blocks` blocks: tiles of
/// 16 tokens, in them block by block, so that a kernel walks one run of memory.
[[nodiscard]] constexpr std::size_t block_index(int token, int block, int blocks) {
  const auto tile = static_cast<std::size_t>(token / tile_tokens);
  return (tile * static_cast<std::size_t>(blocks) + static_cast<std::size_t>(block)) * tile_tokens +
         static_cast<std::size_t>(token % tile_tokens);
}

/// The inputs of a product, one row per token. Both forms are there; float weights read `values`,
/// quantised ones the codes, whose layout belongs to the level that wrote them.
struct activation_rows {
  const float* values = nullptr;
  std::size_t stride = 0;           // floats
  const std::byte* codes = nullptr; // by block_index
  const block_meta* meta = nullptr; // by block_index
  int blocks = 0;                   // per token
  code_bits bits = code_bits::sixteen;
};

/// The columns [begin, end) of one leaf, counted within the packed matrix.
struct leaf_columns {
  int begin = 0;
  int end = 0;
};

/// One sum over whole leaves, added in the fixed tree. `out` is [tokens][stride] floats.
struct leaf_sum {
  const leaf_columns* leaves = nullptr;
  int count = 0;
  float* out = nullptr;
};

/// y = W x for many tokens: one output row of W's rows per sum.
struct product {
  matrix_view weights;
  activation_rows inputs;
  const leaf_sum* sums = nullptr;
  int sum_count = 0;
  std::size_t out_stride = 0; // floats
};

/// Attention of the query heads of one KV head, for tokens that follow one another in a sequence,
/// over paged keys and values.
struct attention {
  const float* query = nullptr; // [tokens][heads][head_dim], already scaled and rotated
  float* out = nullptr;         // [tokens][heads][head_dim]
  std::size_t query_stride = 0; // floats from one token to the next
  std::size_t out_stride = 0;
  int tokens = 1;
  int heads = 0;     // query heads that share the KV head
  int positions = 0; // the first token attends positions [0, positions), the next one more, ...
  const std::uint32_t* blocks = nullptr;
  const std::byte* pool = nullptr; // start of the pool, moved to this layer and KV head
  std::size_t block_stride = 0;
};

struct kernel_table {
  const char* level;
  /// Row groups [group_begin, group_end) of tokens [0, tokens).
  void (*multiply)(const product&, int group_begin, int group_end, int tokens);
  /// out = x / rms(x) * weight.
  void (*normalise)(const float* x, const float* weight, float epsilon, int n, float* out);
  /// `columns` values (a multiple of 32) of one token to codes and metas, of which the pointers
  /// name the first block; the next ones lie tile_tokens further.
  void (*quantise)(const float* x, int columns, code_bits bits, std::byte* codes, block_meta* meta);
  /// gate = silu(gate) * up.
  void (*gate)(float* gate, const float* up, int n);
  /// a += b.
  void (*add)(float* a, const float* b, int n);
  /// Rotates one head in place by `row` (cosines, then sines, head_dim / 2 each).
  void (*rotate)(float* head, const float* row, int head_dim, bool interleaved);
  /// Key and value of one position of one KV head into its block.
  void (*store_kv)(const kv_layout&, std::byte* block, int slot, const float* key,
                   const float* value);
  void (*attend)(const kv_layout&, const attention&);
};

/// The float32 reference: plain loops.
[[nodiscard]] const kernel_table& reference_kernels();
/// The chosen level's kernels (the best one, HEXGEN_CPU_LEVEL, or set_cpu_level's).
[[nodiscard]] const kernel_table& fast_kernels();

} // namespace hexgen::compute
