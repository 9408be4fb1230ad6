#include "compute/cpu/shard_weights.hpp"

#include "compute/files/mapped_file.hpp"

#include <algorithm>
#include <cstring>

namespace hexgen::compute {

namespace {

class loader {
public:
  loader(const model_file& model, const shard& part, const executor_options& options, arena& memory)
      : model_(model), config_(model.config()), part_(part), options_(options), memory_(memory) {}

  shard_weights load() {
    shard_weights w;
    w.layers.reserve(static_cast<std::size_t>(part_.layers));
    for (int i = part_.first_layer; i < part_.first_layer + part_.layers; ++i)
      w.layers.push_back(layer("blk." + std::to_string(i) + "."));
    if (part_.last) {
      w.output_norm = vector("output_norm.weight", config_.hidden);
      const bool own = model_.find("output.weight") != nullptr;
      add_rows(w.head, own ? "output.weight" : "token_embd.weight", config_.vocab, config_.hidden,
               part_.vocab_begin, part_.vocab_end);
    }
    if (part_.first && part_.rank == 0)
      w.embedding = &tensor("token_embd.weight", config_.vocab, config_.hidden);
    return w;
  }

private:
  const tensor_view& tensor(const std::string& name, std::int64_t rows, std::int64_t columns) {
    const auto* t = model_.find(name);
    if (t == nullptr)
      throw file_error(config_.name + ": tensor " + name + " is missing");
    if (t->rows != rows || t->columns != columns)
      throw file_error(config_.name + ": tensor " + name + " is " + std::to_string(t->rows) +
                       " x " + std::to_string(t->columns) + ", not " + std::to_string(rows) +
                       " x " + std::to_string(columns));
    return *t;
  }

  /// A vector as float32: `begin`.. of it, written to `out` when there is memory.
  void copy_values(const tensor_view& t, std::int64_t begin, std::int64_t count, float* out) {
    if (out == nullptr)
      return;
    std::vector<float> all(static_cast<std::size_t>(t.columns));
    dequantize_row(t.type, t.bytes.data(), t.columns, all.data());
    std::copy_n(all.begin() + begin, count, out);
  }

  const float* vector(const std::string& name, int size) {
    const auto& t = tensor(name, 1, size);
    auto* out = memory_.take_array<float>(static_cast<std::size_t>(size));
    copy_values(t, 0, size, out);
    return out;
  }

  const float* optional_vector(const std::string& name, int size) {
    return model_.find(name) == nullptr ? nullptr : vector(name, size);
  }

  void add(stacked_matrices& to, const tensor_view& t, const tensor_slice& slice, bool as_f32) {
    const bool plain = options_.kernels == kernel_kind::reference || as_f32;
    to.parts.push_back({pack_matrix(t, slice, plain, memory_), to.rows});
    to.rows += to.parts.back().weights.rows;
    if (to.parts.back().weights.data != nullptr)
      drop_mapped_pages(t.bytes); // the packed copy takes their place
    if (options_.progress && memory_.size() != 0)
      options_.progress(memory_.used(), memory_.size());
  }

  /// Rows [begin, end) of a matrix whose outputs are split over ranks.
  void add_rows(stacked_matrices& to, const std::string& name, int rows, int columns, int begin,
                int end) {
    add(to, tensor(name, rows, columns), {begin, end, 0, columns}, false);
  }

  /// The columns of `leaves` of a matrix whose inputs are split over ranks. A leaf that cuts a
  /// quantisation block in two can only be held dequantised.
  void add_columns(stacked_matrices& to, const std::string& name, int columns, int first_column,
                   const std::vector<leaf_columns>& leaves) {
    const auto& t = tensor(name, config_.hidden, columns);
    const int last_column = first_column + (leaves.empty() ? 0 : leaves.back().end);
    const auto uneven = [](int column) { return column % block_columns != 0; };
    const bool cut = leaf_width_uneven(leaves) || uneven(first_column) || uneven(last_column);
    add(to, t, {0, config_.hidden, first_column, last_column}, cut);
  }

  static bool leaf_width_uneven(const std::vector<leaf_columns>& leaves) {
    return std::any_of(leaves.begin(), leaves.end(),
                       [](const leaf_columns& l) { return l.end % block_columns != 0; });
  }

  layer_weights layer(const std::string& prefix) {
    const auto& c = config_;
    layer_weights w;
    w.attention_norm = vector(prefix + "attn_norm.weight", c.hidden);
    w.ffn_norm = vector(prefix + "ffn_norm.weight", c.hidden);
    w.query_norm = optional_vector(prefix + "attn_q_norm.weight", c.head_dim);
    w.key_norm = optional_vector(prefix + "attn_k_norm.weight", c.head_dim);

    const int kv_begin = part_.kv_head_begin * c.head_dim;
    const int kv_end = part_.kv_head_end * c.head_dim;
    const int q_begin = kv_begin * c.group();
    const int q_end = kv_end * c.group();
    add_rows(w.qkv, prefix + "attn_q.weight", c.q_width(), c.hidden, q_begin, q_end);
    add_rows(w.qkv, prefix + "attn_k.weight", c.kv_width(), c.hidden, kv_begin, kv_end);
    add_rows(w.qkv, prefix + "attn_v.weight", c.kv_width(), c.hidden, kv_begin, kv_end);
    w.qkv_bias = bias(prefix, w.qkv.rows, q_begin, q_end, kv_begin, kv_end);
    add_columns(w.attention_out, prefix + "attn_output.weight", c.q_width(), q_begin,
                attention_leaves(c, part_));

    const auto cuts = ffn_leaf_cuts(c);
    const int ffn_begin = cuts[static_cast<std::size_t>(part_.ffn_leaf_begin)];
    const int ffn_end = cuts[static_cast<std::size_t>(part_.ffn_leaf_end)];
    add_rows(w.gate_up, prefix + "ffn_gate.weight", c.ffn, c.hidden, ffn_begin, ffn_end);
    add_rows(w.gate_up, prefix + "ffn_up.weight", c.ffn, c.hidden, ffn_begin, ffn_end);
    w.ffn_down.wide_inputs = true; // products of gates and values
    add_columns(w.ffn_down, prefix + "ffn_down.weight", c.ffn, ffn_begin, ffn_leaves(c, part_));
    return w;
  }

  /// The rank's slices of the query, key and value biases, one after the other.
  const float* bias(const std::string& prefix, int rows, int q_begin, int q_end, int kv_begin,
                    int kv_end) {
    if (model_.find(prefix + "attn_q.bias") == nullptr)
      return nullptr;
    auto* out = memory_.take_array<float>(static_cast<std::size_t>(rows));
    const int q_rows = q_end - q_begin;
    const int kv_rows = kv_end - kv_begin;
    const auto at = [&](int row) { return out == nullptr ? nullptr : out + row; };
    copy_values(tensor(prefix + "attn_q.bias", 1, config_.q_width()), q_begin, q_rows, at(0));
    copy_values(tensor(prefix + "attn_k.bias", 1, config_.kv_width()), kv_begin, kv_rows,
                at(q_rows));
    copy_values(tensor(prefix + "attn_v.bias", 1, config_.kv_width()), kv_begin, kv_rows,
                at(q_rows + kv_rows));
    return out;
  }

  const model_file& model_;
  const model_config& config_;
  const shard& part_;
  const executor_options& options_;
  arena& memory_;
};

} // namespace

shard_weights load_shard(const model_file& model, const shard& part,
                         const executor_options& options, arena& memory) {
  return loader(model, part, options, memory).load();
}

std::vector<leaf_columns> attention_leaves(const model_config& config, const shard& part) {
  const int width = config.group() * config.head_dim;
  std::vector<leaf_columns> leaves;
  for (int h = 0; h < part.kv_head_end - part.kv_head_begin; ++h)
    leaves.push_back({h * width, (h + 1) * width});
  return leaves;
}

std::vector<leaf_columns> ffn_leaves(const model_config& config, const shard& part) {
  const auto cuts = ffn_leaf_cuts(config);
  const int first = cuts[static_cast<std::size_t>(part.ffn_leaf_begin)];
  std::vector<leaf_columns> leaves;
  for (auto i = static_cast<std::size_t>(part.ffn_leaf_begin);
       i < static_cast<std::size_t>(part.ffn_leaf_end); ++i)
    leaves.push_back({cuts[i] - first, cuts[i + 1] - first});
  return leaves;
}

} // namespace hexgen::compute
