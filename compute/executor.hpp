// What a device does: runs its shard of a model over paged KV. One interface, two backends.
#pragma once

#include "compute/collective.hpp"
#include "compute/model_file.hpp"
#include "compute/row_choice.hpp"
#include "compute/shard.hpp"
#include "compute/step.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>

namespace hexgen::compute {

enum class kernel_kind : std::uint8_t { fast, reference };
enum class kv_type : std::uint8_t { f32, f16, bf16, q8 };

/// Told while something is loaded or fetched: bytes done, bytes in all.
using byte_progress = std::function<void(std::uint64_t, std::uint64_t)>;

struct executor_options {
  kernel_kind kernels = kernel_kind::fast;
  kv_type kv = kv_type::f32;
  int threads = 1;           // CPU worker threads, the caller's included
  int max_step_tokens = 512; // the widest step that will be run; sizes the activations
  int max_logit_rows = 64;   // the most logit rows of a step
  byte_progress progress;    // while loading
};

struct executor_memory {
  std::uint64_t weight_bytes = 0;
  std::uint64_t activation_bytes = 0; // at max_step_tokens
  std::uint64_t kv_block_bytes = 0;   // one block: this rank's layers and KV heads
};

/// A loaded shard with its KV pool. Not thread-safe: one device thread calls it.
class executor {
public:
  virtual ~executor() = default;
  [[nodiscard]] virtual const model_config& config() const = 0;
  [[nodiscard]] virtual const shard& part() const = 0;
  [[nodiscard]] virtual executor_memory memory() const = 0;
  /// Reserves the pool; ids 0 .. blocks-1 are then valid in steps. Contents are unspecified.
  virtual void allocate_kv(std::uint32_t blocks) = 0;
  /// Does what first steps would have to wait for. After allocate_kv(); may take seconds.
  virtual void warm_up() {}

  /// Runs the shard's layers over `s`. All ranks of the stage call it with the same step.
  ///  ids     [s.tokens()]               read by the first stage's leader, else empty
  ///  hidden  [s.tokens(), hidden] f32   every rank: input (but on the first stage, where it is
  ///                                     filled from ids by the leader and broadcast) and output
  ///  logits  [s.logit_rows(), vocab]    written on the last stage's leader; may be empty elsewhere
  /// Throws collective_aborted; std::invalid_argument when the step names a block outside the pool
  /// or is wider than max_step_tokens.
  virtual void run(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
                   std::span<float> logits, collective& group) = 0;

  /// Whether the device chooses tokens: a last stage of degree 1. Its steps have two halves, so
  /// that the host begins the next step while the device computes this one.
  [[nodiscard]] virtual bool chooses_tokens() const { return false; }
  /// run(), and each logit row's token by `choices` [s.logit_rows()]; returns while the device
  /// computes. Ids below 0 stand for the token of a row of the step begun before: -1 - row.
  /// At most two steps are begun and not ended, and none is begun before one with a row on_host has
  /// ended. `hidden` is read before the call returns.
  virtual void begin_choosing(const step& /*s*/, std::span<const std::int32_t> /*ids*/,
                              std::span<float> /*hidden*/, std::span<const row_choice> /*choices*/,
                              collective& /*group*/) {
    throw std::logic_error("this device does not choose tokens");
  }
  /// Whether end_choosing() would return at once.
  [[nodiscard]] virtual bool chosen() { return true; }
  /// Waits for the oldest step begun. Its rows' tokens go to `tokens` [s.logit_rows()]; only rows
  /// with on_host come into `logits` [s.logit_rows(), vocab], which may be empty when there is
  /// none.
  virtual void end_choosing(std::span<std::int32_t> /*tokens*/, std::span<float> /*logits*/) {
    throw std::logic_error("this device does not choose tokens");
  }
};

/// The device's context is gone (a sticky CUDA error): only a new process can use it again.
class device_lost : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

/// Loads a shard on the CPU. Throws file_error when a tensor is missing or misshapen,
/// std::bad_alloc when memory is short.
[[nodiscard]] std::unique_ptr<executor> make_cpu_executor(std::shared_ptr<const model_file> model,
                                                          const shard& part,
                                                          const executor_options& options);

/// The bytes that make_cpu_executor would need, without loading.
[[nodiscard]] executor_memory cpu_executor_memory(const model_file& model, const shard& part,
                                                  const executor_options& options);

/// The CPU's dispatch levels that this machine has, best first: "amx", "vnni", "avx512", "avx2".
/// `set_cpu_level` forces one (tests; HEXGEN_CPU_LEVEL); throws when the machine lacks it.
[[nodiscard]] std::vector<std::string> cpu_levels();
void set_cpu_level(const std::string& level);

} // namespace hexgen::compute
