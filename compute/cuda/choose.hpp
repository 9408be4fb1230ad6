// Tokens from logits on the device, as the CPU's sampler chooses them.
#pragma once

#include "compute/row_choice.hpp"

#include <cuda_runtime_api.h>

#include <cstdint>

namespace hexgen::compute::cuda {

/// tokens[r] of logits[r][width], r < rows, by choices[r] (device memory; top_k <= most_top_k).
/// Rows with on_host get -1. The same token as token_selector gives on the same logits, NaN and
/// infinities made finite as sequence_sampler does: sums are integers, so no order changes them.
void choose(const float* logits, const row_choice* choices, std::int32_t* tokens, int rows,
            int width, cudaStream_t stream);

} // namespace hexgen::compute::cuda
