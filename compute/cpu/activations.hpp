// The working memory of one step.
#pragma once

#include "compute/cpu/arena.hpp"
#include "compute/cpu/kernels.hpp"
#include "compute/executor.hpp"

namespace hexgen::compute {

/// Sized for the widest step; rows are tokens. Every buffer is used anew in each layer.
struct activations {
  activations(const model_config& config, const shard& part, const executor_options& options,
              arena& memory);

  int qkv_width;   // query, key and value rows of this rank
  int query_width; // query rows of this rank
  int ffn_width;   // FFN columns of this rank
  int sum_planes;  // room in `sums`, in [tokens][hidden] planes

  float* normed;     // [tokens][hidden]
  float* qkv;        // [tokens][qkv_width]
  float* attended;   // [tokens][query_width]
  float* gate_up;    // [tokens][2 * ffn_width]
  float* sums;       // [sum_planes][tokens][hidden]
  float* angles;     // [tokens][head_dim]: cosines, then sines
  float* logit_rows; // [max_logit_rows][hidden]
  float* logits;     // [max_logit_rows][vocab] when several ranks share the head, else null
  std::byte* codes;  // of whichever input is quantised, by block_index
  block_meta* meta;  // beside the codes
};

} // namespace hexgen::compute
