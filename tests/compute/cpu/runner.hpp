// Drives executors as a replica would: sequences, block tables, steps through stages and ranks.
#pragma once

#include "compute/executor.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace hexgen::compute::testing {

/// One stage: an executor for each rank. Ranks run on threads of their own.
struct test_stage {
  std::vector<std::unique_ptr<executor>> ranks;
};

/// How a model is cut up: layers of each stage and the speeds of its ranks.
struct test_layout {
  std::vector<int> layers;
  std::vector<std::vector<double>> speeds;
};

/// One run of tokens of one sequence in a step.
struct test_run {
  int sequence = 0;
  std::vector<std::int32_t> ids;
  int logits = 0;
};

/// A model on a layout, with a KV pool whose blocks are handed out in an order set by `seed`.
class runner {
public:
  runner(std::shared_ptr<const model_file> model, const test_layout& layout,
         const executor_options& options, std::uint32_t blocks, std::uint32_t seed = 0);

  /// One step; every run goes on where its sequence stopped. Returns the logit rows in order.
  std::vector<std::vector<float>> step(const std::vector<test_run>& runs);
  /// Forgets a sequence and frees its blocks.
  void close(int sequence);
  [[nodiscard]] const model_config& config() const { return model_->config(); }
  [[nodiscard]] const executor& rank(int stage, int r) const { return *stages_[stage].ranks[r]; }

private:
  struct sequence_state {
    std::int32_t position = 0;
    std::vector<std::uint32_t> blocks;
  };
  void run_stage(test_stage& stage, const hexgen::compute::step& s,
                 std::span<const std::int32_t> ids, std::vector<float>& hidden,
                 std::span<float> logits);

  std::shared_ptr<const model_file> model_;
  std::vector<test_stage> stages_;
  std::vector<std::uint32_t> free_;
  std::vector<sequence_state> sequences_;
};

/// The whole model on one device.
[[nodiscard]] test_layout one_device(const model_config& config);
/// The default model's file ($HEXGEN_MODEL, or the user's cache). Throws when it is missing.
[[nodiscard]] std::shared_ptr<const model_file> default_model();
[[nodiscard]] int largest_index(std::span<const float> logits);

} // namespace hexgen::compute::testing
