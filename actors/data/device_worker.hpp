// One device: its thread, its loaded shards, and the steps that run on them.
#pragma once

#include "actors/data/data_plane.hpp"
#include "compute/executor.hpp"
#include "compute/gpu_weights.hpp"
#include "compute/tokenizer.hpp"
#include "scheduler/serving_planner.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace hexgen::actors {

struct device_options {
  std::uint32_t index = 0;
  std::string kind = "cpu"; // cpu or cuda
  int ordinal = 0;          // cuda:N
  int threads = 1;
  std::uint64_t memory_bytes = 0; // budget for weights, activations and KV
  double speed = 1.0;             // < 1: after computing t it waits t*(1/speed - 1)
  compute::gpu_weights weights = compute::gpu_weights::bf16; // cuda: what matrices are kept as
};

/// Where one rank of one stage of one generation sits in its pipeline.
struct rank_spec {
  std::uint64_t replica = 0;
  std::uint64_t generation = 0;
  std::uint32_t stage = 0, stages = 1;
  compute::shard part;
  std::vector<node_process> rank_nodes;    // node of every rank of this stage
  std::vector<std::uint32_t> rank_devices; // and its device index there
  node_process next_node;                  // leader of the next stage; "" on the last
  std::uint32_t next_device = 0;
  node_process replica_node; // where step results go
  compute::executor_options executor;
  int max_sequence = 0;        // tokens; 0: the model's own context
  bool deterministic = false;  // of a GPU: bits do not depend on the batch
  bool stage_recovery = false; // keeps what it passes on, if it leads a stage that is not the last

  [[nodiscard]] bool keeps_hidden() const {
    return stage_recovery && part.rank == 0 && stage + 1 < stages;
  }
};

/// Full KV blocks that hold a sequence's first tokens.
struct kept_sequence {
  std::vector<compute::token_id> tokens;
  std::vector<std::uint32_t> blocks;
};

struct written_block {
  std::uint32_t block = 0;
  std::uint64_t step = 0;
};

/// What a generation goes on with when it is committed.
struct kv_start {
  std::uint32_t kv_blocks = 0;
  std::uint64_t inherits = 0; // generation whose KV is kept; 0: all blocks are empty
  bool hollow = false;        // this stage has none of it,
  bool next_hollow = false;   // nor has the next
};

/// The model with the weights of the shard there; on the loader thread, may take long and throw.
/// Tells how far it is where it has to fetch them.
using model_source = std::function<std::shared_ptr<const compute::model_file>(
    const compute::shard&, const compute::byte_progress&)>;

struct prepare_result {
  std::string error; // empty: loaded
  compute::executor_memory memory;
  std::uint32_t kv_blocks = 0;      // floor(budget left / bytes of one block)
  std::uint64_t kept = 0;           // the generation whose KV is still in the pool; 0: none
  std::vector<kept_sequence> known; // what is in it; from the last stage's leader,
  std::uint64_t known_step = 0;     // after that step
  std::vector<written_block> late;  // written by steps that the last stage may not have seen
};

struct rank_progress {
  std::uint64_t replica = 0, generation = 0;
  std::uint64_t last_step = 0;
  std::uint64_t running_ms = 0;               // age of the step being computed; 0: idle
  std::uint64_t running_tokens = 0;           // of that step
  std::uint64_t done_tokens = 0, done_us = 0; // of all steps that have ended
  double loaded = 1;                          // share of its shard; below 1: it runs no steps yet
};

struct device_rates {
  double decode_us_per_layer = 0;
  double prefill_us_per_token_layer = 0;
  double decode_us_head = 0;
  scheduler::serving_sizes sizes{}; // what the device holds of the model
};

/// Owns a device thread (steps, strictly in order per generation) and a loader thread (shards of a
/// new generation load while the old one serves). All methods are thread-safe; callbacks run on the
/// worker's threads and must not block.
class device_worker {
public:
  virtual ~device_worker() = default;
  [[nodiscard]] virtual const device_options& options() const = 0;
  virtual void prepare(rank_spec spec, model_source model,
                       std::shared_ptr<const compute::tokenizer> tokens,
                       std::function<void(prepare_result)> done) = 0;
  /// Allocates the KV pool; from then on frames of the generation are run.
  virtual void commit(std::uint64_t replica, std::uint64_t generation, kv_start start,
                      std::function<void(std::string error)> done) = 0;
  /// Aborts what runs, frees weights and KV; unknown generations are fine. `keep`: they stay for
  /// ten seconds, for a generation with the same shard, and make way for any other.
  virtual void release(std::uint64_t replica, std::uint64_t generation, bool keep,
                       std::function<void()> done) = 0;
  /// Sets the generation's abort flag: a running collective leaves within 100 ms.
  virtual void abort(std::uint64_t replica, std::uint64_t generation) = 0;
  /// STEP, RANK_STEP and COLLECTIVE frames, from the transport thread. Returns false when the
  /// generation is unknown or released here (the caller counts it).
  virtual bool on_frame(std::shared_ptr<const transport::frame> f) = 0;
  [[nodiscard]] virtual std::vector<rank_progress> progress() const = 0;
  /// A real layer's decode and prefill time and the head's, on this device's threads and speed, and
  /// the model's sizes here for steps of `options` and sequences of `max_sequence` tokens (0: the
  /// model's own context).
  virtual void measure(std::shared_ptr<const compute::model_file> model,
                       compute::executor_options options, int max_sequence,
                       std::function<void(device_rates)> done) = 0;
};

struct device_signals {
  /// (replica, generation, reason): a step of it broke.
  std::function<void(std::uint64_t, std::uint64_t, std::string)> failed;
  /// The device can only be used again by a new process (compute::device_lost).
  std::function<void(std::string)> lost;
};

/// Signals come from any of the worker's threads.
[[nodiscard]] std::unique_ptr<device_worker>
make_device_worker(device_options options, data_plane& out, device_signals signals);

} // namespace hexgen::actors
