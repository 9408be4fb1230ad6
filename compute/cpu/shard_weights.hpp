// The weights of one rank's shard, packed for the kernels.
#pragma once

#include "compute/cpu/kernels.hpp"
#include "compute/cpu/matrix.hpp"
#include "compute/executor.hpp"

#include <optional>
#include <vector>

namespace hexgen::compute {

/// Matrices that read the same input; each writes its rows from `first_row` of the output on.
struct stacked_matrices {
  struct part {
    matrix_view weights;
    int first_row = 0;
  };
  std::vector<part> parts;
  int rows = 0;
  bool wide_inputs = false; // inputs with outliers, of which 12 bits leave too little of the rest

  /// How their input is quantised, if any of them is. All ranks and layouts agree: it hangs on the
  /// tensors' types alone.
  [[nodiscard]] std::optional<code_bits> input_bits() const {
    std::optional<code_bits> bits;
    for (const auto& p : parts)
      if (p.weights.quantised() && bits != code_bits::sixteen)
        bits = p.weights.codes == code_kind::nibble && !wide_inputs ? code_bits::twelve
                                                                    : code_bits::sixteen;
    return bits;
  }
};

/// Pointers are null where the model has no such tensor.
struct layer_weights {
  const float* attention_norm = nullptr; // [hidden]
  const float* ffn_norm = nullptr;       // [hidden]
  const float* query_norm = nullptr;     // [head_dim]
  const float* key_norm = nullptr;       // [head_dim]
  const float* qkv_bias = nullptr;       // [rows of qkv]
  stacked_matrices qkv;                  // this rank's query, key and value rows
  stacked_matrices attention_out;        // columns of this rank's query heads
  stacked_matrices gate_up;              // this rank's gate rows, then its up rows
  stacked_matrices ffn_down;             // columns of this rank's leaves
};

struct shard_weights {
  std::vector<layer_weights> layers;
  const float* output_norm = nullptr;     // last stage
  stacked_matrices head;                  // last stage: rows [vocab_begin, vocab_end)
  const tensor_view* embedding = nullptr; // first stage's leader: read from the file's mapping
};

/// Loads the shard's weights into `memory`, or only counts them when it only counts. Checks shapes.
/// Throws file_error.
[[nodiscard]] shard_weights load_shard(const model_file& model, const shard& part,
                                       const executor_options& options, arena& memory);

/// The leaves of this rank's attention output (KV heads), as columns of its packed matrix.
[[nodiscard]] std::vector<leaf_columns> attention_leaves(const model_config& config,
                                                         const shard& part);
/// The leaves of this rank's FFN.
[[nodiscard]] std::vector<leaf_columns> ffn_leaves(const model_config& config, const shard& part);

} // namespace hexgen::compute
