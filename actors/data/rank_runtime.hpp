// One rank of one stage of one generation: its thread, its executor, its sequences' samplers.
#pragma once

#include "actors/core/wire.hpp"
#include "actors/data/device_worker.hpp"
#include "actors/data/known_tables.hpp"
#include "actors/data/link_collective.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

namespace hexgen::actors {

struct rank_signals {
  std::function<void(std::string)> failed;
  std::function<void(std::string)> lost; // the device, too: compute::device_lost; may be empty
};

/// What a rank leaves to the next generation on its device.
struct kept_rank {
  rank_spec spec;
  std::unique_ptr<compute::executor> executor;
  std::uint32_t kv_blocks = 0;
  /// What is in the blocks; of the last stage's leader.
  std::vector<kept_sequence> known;
  std::uint64_t known_step = 0;
  std::vector<written_block> late; // prepare_result
  /// What it passed on, by KV block and position; empty when it keeps none.
  std::vector<float> hidden;
};

/// Runs steps strictly in the order of their numbers. A rank that is a whole model on a device that
/// chooses tokens begins the next step, when it is there, while the device computes. Thread-safe;
/// `failed(reason)` is called once, from the rank's thread, and the generation is poisoned from
/// then on.
class rank_runtime {
public:
  rank_runtime(rank_spec spec, double speed, data_plane& out, compute_slot& slot,
               std::shared_ptr<const compute::tokenizer> tokens, kept_rank from,
               rank_signals signals);
  ~rank_runtime(); // as close()
  rank_runtime(const rank_runtime&) = delete;
  rank_runtime& operator=(const rank_runtime&) = delete;

  /// Allocates the KV pool, unless it is inherited, and starts the thread. Throws std::bad_alloc.
  void start(const kv_start& with);
  void on_step(wire::step_message head, std::shared_ptr<const transport::frame> f);
  void on_collective(const wire::collective_head& head, std::shared_ptr<const transport::frame> f);
  /// A running collective leaves within 100 ms; no later step is run.
  void abort(const std::string& reason);
  /// Aborts and joins the thread; waits for a running step. From one thread at a time.
  void close();
  /// After close(), once.
  [[nodiscard]] kept_rank leave();
  [[nodiscard]] rank_progress progress() const;
  [[nodiscard]] const rank_spec& spec() const { return spec_; }
  [[nodiscard]] std::uint64_t memory_bytes() const { return memory_bytes_; }
  /// Of a KV block with what is kept beside it.
  [[nodiscard]] static std::uint64_t kv_block_bytes(const rank_spec& spec,
                                                    const compute::executor_memory& memory,
                                                    const compute::model_config& config);

private:
  struct work {
    wire::step_message head;
    std::shared_ptr<const transport::frame> frame;
    std::chrono::steady_clock::time_point came{};
  };
  /// A sequence's sampler and what steps that are not ended mean for it.
  struct open_sequence {
    std::optional<compute::sequence_sampler> sampler; // none: no sampler takes its parameters
    wire::sampled refusal;                            // what is told then
    compute::token_id last = -1;                      // chosen; -1: none yet
    int pending = 0;                                  // tokens that begun steps will choose
    std::int32_t row = 0;                             // of the last begun step that will choose one
    bool ended = false; // `last` was its last: later rows are of steps formed ahead
  };
  /// A step that the device computes.
  struct begun_step {
    wire::step_message head;
    std::vector<compute::row_choice> choices;
    std::chrono::steady_clock::time_point since{};
    bool on_host = false; // some row's token is chosen here: the next step waits for it
  };
  static constexpr std::size_t queue_limit = 1024;
  [[nodiscard]] std::uint64_t kv_block_bytes() const;

  void loop();
  std::optional<work> next_work();
  void run_step(work w);
  void note_known(const wire::step_message& head, const wire::step_result& result);
  void keep_hidden(const wire::step_message& head, const std::vector<float>& hidden);
  [[nodiscard]] std::vector<float> kept_hidden(const wire::step_message& head) const;
  [[nodiscard]] bool computes(const wire::step_message& head) const {
    return !head.refill || start_.hollow;
  }
  void forward(wire::step_message& head, const std::shared_ptr<std::vector<float>>& hidden);
  void begin_step(wire::step_message head);
  void end_step();
  void finish(wire::step_message& head, wire::step_result result, double compute_us);
  [[nodiscard]] std::vector<compute::row_choice> choices_of(const wire::step_message& head);
  void fill_ids(wire::step_message& head);
  /// Takes each row's token, from `logits` where `choices` has none or says so.
  void sample(const wire::step_message& head, std::span<const compute::row_choice> choices,
              std::span<const std::int32_t> tokens, std::span<float> logits,
              wire::step_result& result);
  std::span<float> logit_room(std::size_t rows);
  [[nodiscard]] open_sequence& opened(std::uint64_t sequence);
  void open_sequences(const wire::step_message& head);
  [[nodiscard]] bool may_begin() const;
  void fail(const std::string& reason);
  void note_running(const compute::step* next);
  [[nodiscard]] bool leader() const { return spec_.part.rank == 0; }
  [[nodiscard]] bool last() const { return spec_.stage + 1 == spec_.stages; }

  const rank_spec spec_;
  data_plane& out_;
  compute_slot& slot_;
  std::shared_ptr<const compute::tokenizer> tokens_;
  std::unique_ptr<compute::executor> executor_;
  std::uint32_t kv_blocks_;   // of the executor's pool; 0: none yet
  std::vector<float> hidden_; // kept_rank::hidden
  kv_start start_;
  known_tables known_; // with stage-local recovery
  rank_signals signals_;
  speed_limiter limiter_;
  collective_mailbox mail_;
  link_collective group_;
  std::uint64_t memory_bytes_ = 0;
  const bool chooses_, overlaps_;
  std::unordered_map<std::uint64_t, open_sequence> sequences_; // last stage's leader
  std::vector<float> logits_;
  std::deque<begun_step> begun_;
  std::chrono::steady_clock::time_point last_end_{};
  std::uint64_t last_taken_ = 0; // the number of the last step taken up

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
