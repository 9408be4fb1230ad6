// The engine of one replica generation: requests in, steps out, tokens back. Lives beside stage 0.
#pragma once

#include "actors/core/wire.hpp"
#include "scheduler/engine/step_batcher.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

namespace hexgen::actors {

/// Whoever sent a request: the shell's number for a router's connection, never used twice.
using router_id = std::uint64_t;
using time_us = scheduler::time_us;

struct replica_options {
  std::uint64_t replica = 0, generation = 0;
  int stages = 1;
  int steps_ahead = 0; // formed and sent while one runs; only with one stage
  std::uint32_t kv_blocks = 0;
  int vocab = 0;           // 0: token ids are not checked
  int max_sequence = 2048; // tokens, prompt and output
  int max_step_tokens = 512;
  int even_chunk = 0; // batcher_options
  int max_running = 256;
  int max_waiting = 1024; // more than can run; past it: request_failed{retry = false, status = 429}
  int draft_tokens = 0;   // speculation by prompt look-up
  bool prefix_cache = true;
  bool stage_recovery = false;    // another generation may go on with its KV
  scheduler::hash_key prefix_key; // drawn by the shell
  /// What the KV pool still holds of the generation before (stage-local recovery); null: nothing.
  std::shared_ptr<const scheduler::kept_blocks> inherited;
};

/// To stage 0's leader (this node).
struct send_step {
  wire::step_message message;
};
/// What a step gave to one router's requests.
struct send_chunks {
  router_id to = 0;
  std::vector<wire::token_chunk> chunks;
};
struct send_failed {
  router_id to = 0;
  wire::request_failed message;
};
/// A drained replica's last sequence has left. Once.
struct replica_drained {};
/// A step failed or its result made no sense: the generation is poisoned. Once.
struct replica_broken {
  std::string reason;
};
using replica_effect =
    std::variant<send_step, send_chunks, send_failed, replica_drained, replica_broken>;
using replica_effects = std::vector<replica_effect>;

/// Functional core: every call takes an event and the time and returns what is to be done, in
/// order. The shell decodes frames (wire.hpp) and refuses those of another generation before.
class replica_state {
public:
  explicit replica_state(replica_options options);
  ~replica_state();

  /// A request, or the rest of one: `emitted` is never sampled again. A higher attempt of a known
  /// request replaces it.
  replica_effects submit(router_id from, wire::submit m, time_us now);
  replica_effects cancel(router_id from, const wire::cancel& m, time_us now);
  /// The router's connection is gone: its requests are cancelled.
  replica_effects router_lost(router_id from, time_us now);
  replica_effects step_result(const wire::step_result& m, time_us now);
  /// No new requests (request_failed{retry}); those here go on.
  replica_effects drain(time_us now);
  /// The generation is over (a stage lost, drain limit passed, released): everything that is still
  /// here fails with retry, so that its router moves it.
  replica_effects abort(const std::string& reason, time_us now);
  /// Every 50 to 250 ms.
  replica_effects tick(time_us now);

  [[nodiscard]] bool idle() const;                          // no sequence is here
  [[nodiscard]] bool dead() const;                          // aborted or broken
  [[nodiscard]] std::uint64_t last_step() const;            // that returned
  [[nodiscard]] time_us oldest_step_age(time_us now) const; // 0: nothing in flight
  [[nodiscard]] wire::replica_status status() const;
  /// For a generation that takes this one's KV over; after abort().
  [[nodiscard]] scheduler::kept_blocks kept() const { return batcher_.kept(); }
  [[nodiscard]] const replica_options& options() const;
  [[nodiscard]] const scheduler::step_batcher& batcher() const; // for invariant checks

private:
  struct request;
  struct key {
    router_id router = 0;
    std::uint64_t request = 0;
    bool operator==(const key&) const = default;
  };
  struct key_hash {
    std::size_t operator()(const key& k) const;
  };
  void pump(replica_effects& out, time_us now);
  static void refuse(replica_effects& out, router_id to, const wire::submit& m, bool retry,
                     std::uint32_t status, std::string why);
  void forget(std::uint64_t sequence);
  void drop(std::uint64_t sequence);
  void break_down(replica_effects& out, const std::string& reason);
  void fail_all(replica_effects& out, const std::string& reason);
  void note_stages(const std::vector<std::uint64_t>& us);
  /// HTTP status and reason; 0: fine.
  [[nodiscard]] std::pair<std::uint32_t, std::string> check(const wire::submit& m) const;

  replica_options options_;
  scheduler::step_batcher batcher_;
  std::unordered_map<std::uint64_t, std::unique_ptr<request>> requests_; // by sequence
  std::unordered_map<key, std::uint64_t, key_hash> sequence_of_;
  std::vector<std::uint64_t> closes_;
  std::vector<std::pair<std::uint64_t, time_us>> flights_; // step, when it left
  std::uint64_t next_sequence_ = 1;
  std::uint64_t last_step_ = 0;
  std::vector<double> stage_us_; // smoothed
  double tokens_per_s_ = 0;
  time_us rate_from_ = 0;
  std::uint64_t rate_tokens_ = 0;
  std::uint64_t resumed_ = 0;
  bool draining_ = false, drained_told_ = false, dead_ = false;
};

} // namespace hexgen::actors
