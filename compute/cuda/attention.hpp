// Attention over paged KV on the GPU.
#pragma once

#include "compute/cuda/kernels.hpp"

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace hexgen::compute::cuda {

/// One layer's K or V pool: [block][16 positions][kv_heads][head_dim] bf16.
struct paged_kv {
  const __nv_bfloat16* k = nullptr;
  const __nv_bfloat16* v = nullptr;
  const std::int32_t* tables = nullptr; // [sequences][table_stride] block ids
  int table_stride = 0;
  int kv_heads = 0;
  int head_dim = 0; // 64 or 128
};

/// The most splits of one sequence's positions that decode_attention makes.
inline constexpr int max_kv_splits = 32;

/// Scratch floats that decode_attention needs for `sequences` x `heads`.
[[nodiscard]] std::size_t decode_scratch_floats(int sequences, int heads, int head_dim);

/// One query per sequence, in row rows[s] (nullptr: row s) of q and out: [rows][heads][head_dim];
/// q rows are q_stride apart. lengths[s] positions are attended (0: padding, not written).
/// Streams K and V once per KV head. A sequence's pages are cut into `splits` even parts, or, with
/// pages_each > 0, into parts of that many pages (splits * pages_each pages cover the longest):
/// a row's result then does not depend on its batch. `early`: all positions but each sequence's
/// last are read before the kernel in front has ended, so no kernel since the stream was last idle
/// or a graph began may have written them. `rope`: q and the last positions' K and V are still as
/// the product left them, in rope->qkv, which is q; they are rotated here and the latter also kept
/// in the pools (nullptr: rotate_and_store has done so). ended [sequences * kv_heads]: zero before
/// and after.
void decode_attention(const __nv_bfloat16* q, int q_stride, __nv_bfloat16* out, const paged_kv& kv,
                      const rope_store* rope, const std::int32_t* rows, const std::int32_t* lengths,
                      int sequences, int heads, int splits, int pages_each, bool early,
                      float* scratch, unsigned* ended, cudaStream_t stream);

/// A run of queries of one sequence in a step.
struct query_run {
  std::int32_t first_row = 0; // of q and out
  std::int32_t rows = 0;
  std::int32_t position = 0; // of the first row
  std::int32_t table = 0;    // row of kv.tables
};
/// Queries of a tile.
inline constexpr int query_tile_rows = 128;
/// Covers rows [query_tile_rows * index, + query_tile_rows) of runs[run].
struct query_tile {
  std::int32_t run = 0;
  std::int32_t index = 0;
};
/// Causal attention of runs of queries: tensor cores. Tiles with more keys come later in `tiles`.
void prefill_attention(const __nv_bfloat16* q, int q_stride, __nv_bfloat16* out, const paged_kv& kv,
                       const query_run* runs, const query_tile* tiles, int tile_count, int heads,
                       cudaStream_t stream);

} // namespace hexgen::compute::cuda
