// The executor on CPU kernels: the Llama family's graph over one rank's shard.
#pragma once

#include "compute/cpu/activations.hpp"
#include "compute/cpu/kernels.hpp"
#include "compute/cpu/kv_pool.hpp"
#include "compute/cpu/leaf_exchange.hpp"
#include "compute/cpu/rope.hpp"
#include "compute/cpu/shard_weights.hpp"
#include "compute/cpu/step_rows.hpp"
#include "compute/cpu/thread_pool.hpp"
#include "compute/executor.hpp"

#include <optional>

namespace hexgen::compute {

class cpu_executor final : public executor {
public:
  cpu_executor(std::shared_ptr<const model_file> model, const shard& part,
               const executor_options& options, const executor_memory& planned);

  [[nodiscard]] const model_config& config() const override { return model_->config(); }
  [[nodiscard]] const shard& part() const override { return part_; }
  [[nodiscard]] executor_memory memory() const override;
  void allocate_kv(std::uint32_t blocks) override { pool_.allocate(blocks); }
  void run(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
           std::span<float> logits, collective& group) override;

private:
  /// What every rank of the stage holds, as exchanged at the start of a step.
  struct rank_ranges {
    std::int32_t kv_begin, kv_end, ffn_begin, ffn_end, vocab_begin, vocab_end, tokens;
    bool operator==(const rank_ranges&) const = default;
  };

  void check(const step_rows& rows, std::span<const std::int32_t> ids, std::span<float> hidden,
             std::span<float> logits, const collective& group) const;
  void agree(collective& group, int tokens);
  void embed(std::span<const std::int32_t> ids, std::span<float> hidden, collective& group);

  /// hidden += the finished sums of `done` (none before the first layer); then the norm by
  /// `weight` (none after the last) and its codes of `bits`, if any.
  void finish_and_normalise(std::span<float> hidden, const leaf_exchange* done, const float* weight,
                            std::optional<code_bits> bits);
  void rotate_and_store(const layer_weights& w, int layer, const step_rows& rows);
  void attend(const layer_weights& w, int layer, const step_rows& rows);
  void gate(const layer_weights& w);
  void project(const stacked_matrices& w, const float* in, int in_width, float* out);
  void project_leaves(const stacked_matrices& w, const float* in, int in_stride,
                      const std::vector<leaf_columns>& leaves, const leaf_exchange& exchange,
                      collective& group);
  void write_logits(const step_rows& rows, std::span<const float> hidden, std::span<float> logits,
                    collective& group);
  void multiply(const stacked_matrices& w, const activation_rows& in,
                std::span<const leaf_sum> sums, std::size_t out_stride, int tokens);
  [[nodiscard]] activation_rows inputs(const stacked_matrices& w, const float* values, int width,
                                       std::size_t stride) const;
  void quantise(const float* x, std::optional<code_bits> bits, int width, int row, int first_column,
                int columns);
  [[nodiscard]] std::int64_t chunk(std::int64_t items) const;

  std::shared_ptr<const model_file> model_;
  shard part_;
  executor_options options_;
  const kernel_table& kernels_;
  arena weight_memory_;
  arena activation_memory_;
  shard_weights weights_;
  activations work_;
  kv_pool pool_;
  rope_table rope_;
  thread_pool threads_;
  std::vector<leaf_columns> attention_leaves_;
  std::vector<leaf_columns> ffn_leaves_;
  std::vector<rank_ranges> ranks_;
  std::optional<leaf_exchange> attention_exchange_;
  std::optional<leaf_exchange> ffn_exchange_;
  int tokens_ = 0; // of the step that runs
};

} // namespace hexgen::compute
