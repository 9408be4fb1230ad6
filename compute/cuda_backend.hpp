// The GPU backend's face: no CUDA types, so that every room may include it.
#pragma once

#include "compute/executor.hpp"
#include "compute/gpu_weights.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hexgen::compute {

struct gpu_info {
  int ordinal = 0;
  std::string name;
  std::uint64_t memory_bytes = 0, free_bytes = 0;
  int multiprocessors = 0;
  int capability = 0; // major * 10 + minor
};

/// Whether this program has the backend at all.
[[nodiscard]] bool built_with_cuda();

/// The machine's usable GPUs. Empty, with the reason in `why`, when there is none: built without
/// CUDA, no driver, too old an architecture.
[[nodiscard]] std::vector<gpu_info> list_gpus(std::string& why);

struct gpu_options {
  int ordinal = 0;
  int max_sequences = 256;     // widest decode batch
  int max_context = 4096;      // longest sequence, sizes block tables and rotary table
  bool deterministic = false;  // a row's result does not depend on its batch
  bool random_weights = false; // shapes from the model's config, values drawn on the device
  std::uint64_t seed = 1;
  gpu_weights weights = gpu_weights::bf16;
};

/// What GPU executors can do beyond executor: choose greedy tokens without moving logits.
class gpu_executor : public executor {
public:
  /// Like run(), and the likeliest token of each logit row to `tokens` [s.logit_rows()].
  virtual void run_greedy(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
                          std::span<std::int32_t> tokens, collective& group) = 0;
  /// The tokens that begin_choosing() would choose from these logits [choices][vocab] (for tests).
  virtual void choose_from(std::span<const float> logits, std::span<const row_choice> choices,
                           std::span<std::int32_t> tokens) = 0;
  /// Step after step on the device: each sequence's greedy token is the next step's id, entries'
  /// positions advance by one. `s`: one token an entry, blocks for all steps. tokens
  /// [steps][entries].
  virtual void decode_greedy(const step& s, std::span<const std::int32_t> ids, int steps,
                             std::span<std::int32_t> tokens) = 0;
};

/// KV and activations as bf16. Throws std::runtime_error (no GPU, no memory: says how
/// much is needed and free), file_error.
[[nodiscard]] std::unique_ptr<gpu_executor>
make_gpu_executor(std::shared_ptr<const model_file> model, const shard& part,
                  const executor_options& options, const gpu_options& gpu);

/// The bytes that make_gpu_executor would need. Needs no GPU.
[[nodiscard]] executor_memory gpu_executor_memory(const model_config& config, const shard& part,
                                                  const executor_options& options,
                                                  const gpu_options& gpu);

} // namespace hexgen::compute
