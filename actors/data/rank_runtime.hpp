// One rank of one stage of one generation: its thread, its executor, its sequences' samplers.
#pragma once

#include "actors/core/wire.hpp"
#include "actors/data/device_worker.hpp"
#include "actors/data/link_collective.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

namespace hexgen::actors {

struct rank_signals {
  std::function<void(std::string)> failed;
  std::function<void(std::string)> lost; // the device, too: compute::device_lost; may be empty
};

/// Runs steps strictly in the order of their numbers. Thread-safe; `failed(reason)` is called once,
/// from the rank's thread, and the generation is poisoned from then on.
class rank_runtime {
public:
  rank_runtime(rank_spec spec, double speed, data_plane& out, compute_slot& slot,
               std::shared_ptr<const compute::tokenizer> tokens,
               std::unique_ptr<compute::executor> executor, rank_signals signals);
  ~rank_runtime(); // as close()
  rank_runtime(const rank_runtime&) = delete;
  rank_runtime& operator=(const rank_runtime&) = delete;

  /// Allocates the KV pool and starts the thread. Throws std::bad_alloc.
  void start(std::uint32_t kv_blocks);
  void on_step(wire::step_message head, std::shared_ptr<const transport::frame> f);
  void on_collective(const wire::collective_head& head, std::shared_ptr<const transport::frame> f);
  /// A running collective leaves within 100 ms; no later step is run.
  void abort(const std::string& reason);
  /// Aborts and joins the thread; waits for a running step. From one thread at a time.
  void close();
  [[nodiscard]] rank_progress progress() const;
  [[nodiscard]] const rank_spec& spec() const { return spec_; }
  [[nodiscard]] std::uint64_t memory_bytes() const { return memory_bytes_; }

private:
  struct work {
    wire::step_message head;
    std::shared_ptr<const transport::frame> frame;
    std::chrono::steady_clock::time_point came{};
  };
  static constexpr std::size_t queue_limit = 1024;

  void loop();
  void run_step(work w);
  void forward(wire::step_message& head, const std::shared_ptr<std::vector<float>>& hidden);
  void sample(const wire::step_message& head, std::span<float> logits, wire::step_result& result);
  /// run() and sample() in one, with tokens that the device chooses where it can.
  void run_choosing(const wire::step_message& head, std::span<float> hidden,
                    wire::step_result& result);
  [[nodiscard]] compute::sequence_sampler& sampler_of(std::uint64_t sequence);
  void open_sequences(const wire::step_message& head);
  /// Answers for a sequence whose parameters no sampler takes; false: it has one.
  bool refuse(std::uint64_t sequence, wire::step_result& result) const;
  void fail(const std::string& reason);
  [[nodiscard]] bool leader() const { return spec_.part.rank == 0; }
  [[nodiscard]] bool last() const { return spec_.stage + 1 == spec_.stages; }

  const rank_spec spec_;
  data_plane& out_;
  compute_slot& slot_;
  std::shared_ptr<const compute::tokenizer> tokens_;
  std::unique_ptr<compute::executor> executor_;
  rank_signals signals_;
  speed_limiter limiter_;
  collective_mailbox mail_;
  link_collective group_;
  std::uint64_t memory_bytes_ = 0;
  std::map<std::uint64_t, compute::sequence_sampler> samplers_; // last stage's leader
  std::map<std::uint64_t, wire::sampled> refused_;              // what open_sequences refused
  std::vector<float> logits_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<work> queue_;
  bool closing_ = false;
  bool failed_once_ = false;
  bool started_ = false, ended_ = false;                     // the thread
  std::chrono::steady_clock::time_point unanswered_since_{}; // told to end; epoch: not yet
  std::uint64_t last_step_ = 0;
  std::chrono::steady_clock::time_point running_since_{}; // epoch: idle
  std::uint64_t running_tokens_ = 0, done_tokens_ = 0, done_us_ = 0;
  std::thread thread_;
};

} // namespace hexgen::actors
