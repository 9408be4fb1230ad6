// The messages of requests and steps as typed structs: range-checked once, here, at decode.
#pragma once

#include "compute/sampler.hpp"
#include "compute/step.hpp"

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::actors::wire {

/// What a peer sent cannot be used: names the message and the field.
struct wire_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct limits {
  static constexpr int sequence_tokens = 1 << 20;
  static constexpr int step_entries = 4096;
  static constexpr int step_tokens = 65536;
  static constexpr int step_block_ids = 1 << 18;
  static constexpr int queue = 1 << 20;        // sequences
  static constexpr int drafts = 64;            // tokens, of one sequence in a step
  static constexpr int list = 4096;            // stop ids, biases, routes, top tokens, …
  static constexpr int text_bytes = 256 << 10; // grammars, error messages
};

/// What decode_step checks ids against; 0: not known here, not checked.
struct step_bounds {
  std::uint32_t blocks = 0;
  int vocab = 0;
};

struct sequence_open {
  std::uint64_t sequence = 0;
  compute::sampling_params params;
  std::vector<compute::token_id> prompt, emitted;
};

struct step_message {
  std::uint64_t replica = 0, generation = 0;
  std::uint64_t step = 0; // from 1, no gaps
  /// Of blocks that this generation inherited: stages that are new compute them from what the stage
  /// before kept, the others have them. No logits.
  bool refill = false;
  compute::step work;
  std::vector<compute::token_id> ids; // stage 0 only: one per token of `work`; else empty
  /// The last ids of runs with more than one logit row: one fewer than rows, in order. Every rank.
  std::vector<compute::token_id> drafts;
  std::vector<sequence_open> opens;
  std::vector<std::uint64_t> closes;
  std::vector<std::uint64_t> stage_us;
  std::uint32_t stage = 0, rank = 0; // of the receiver
};

struct sampled {
  std::uint64_t sequence = 0;
  int index = 0; // among the request's generated tokens, emitted ones counted
  compute::sampled_token token;
  std::string error; // not empty: the sequence cannot be sampled and ends with no token
};

struct step_result {
  std::uint64_t replica = 0, generation = 0, step = 0;
  std::vector<sampled> tokens;
  std::vector<std::uint64_t> stage_us;
  std::string error; // not empty: the step failed and its generation with it
};

struct collective_head {
  std::uint64_t replica = 0, generation = 0, step = 0;
  std::uint32_t index = 0, rank = 0, stage = 0;
  std::uint32_t to_rank = 0; // the receiver
};

struct submit {
  std::uint64_t request = 0;
  std::uint32_t attempt = 0;
  std::uint64_t replica = 0, generation = 0;
  std::vector<compute::token_id> prompt, emitted;
  compute::sampling_params params;
  int priority = 0;
  double ttft_deadline_ms = 0, tpot_deadline_ms = 0;
};

struct cancel {
  std::uint64_t request = 0;
  std::uint32_t attempt = 0;
  std::uint64_t replica = 0, generation = 0;
};

struct token_chunk {
  std::uint64_t request = 0;
  std::uint32_t attempt = 0;
  int index = 0; // of the first token here
  std::vector<sampled> tokens;
  std::uint32_t cached_tokens = 0;
  std::uint64_t queued_us = 0; // from the replica's taking it in to its first step
};

struct request_failed {
  std::uint64_t request = 0;
  std::uint32_t attempt = 0;
  bool retry = false; // the sequence can go on elsewhere; else final
  std::uint32_t status = 0;
  std::string message;
};

struct route {
  std::uint64_t replica = 0, generation = 0;
  std::string node;
  std::uint64_t incarnation = 0;
  std::string address;
  double capacity = 0; // tokens/s
  bool draining = false;
  std::uint32_t kv_blocks = 0;
};

struct model_reference {
  std::string name, source;
  std::uint64_t bytes = 0;
  std::string digest;
};

struct serve_settings {
  std::string kernels, kv_type;
  std::uint32_t max_sequence = 0, max_step_tokens = 0;
  std::uint32_t heartbeat_ms = 0, suspect_ms = 0, gone_ms = 0;
  bool deterministic = false, prefix_cache = false;
  std::uint32_t max_running = 0;  // sequences of one step; 0: 64
  std::uint32_t max_queued = 0;   // sequences that wait for a place among those
  std::uint32_t draft_tokens = 0; // speculation by prompt look-up; 0: off
  bool stage_recovery = false;    // stages keep what they pass on, to recompute lost layers alone

  [[nodiscard]] std::uint32_t running_limit() const { return max_running == 0 ? 64 : max_running; }
};

struct routing_table {
  std::uint64_t epoch = 0;
  std::vector<route> routes;
  std::string missing; // when empty of routes: what is missing
  model_reference model;
  serve_settings settings;
  bool switching = false; // no routes for the moment, a new generation is on its way
};

struct replica_status {
  std::uint64_t replica = 0, generation = 0;
  std::uint32_t running = 0, waiting = 0, free_blocks = 0, blocks = 0;
  double tokens_per_s = 0;
  std::vector<double> stage_us;
  std::uint64_t steps = 0, preemptions = 0, prefix_queries = 0, prefix_hits = 0;
  std::uint64_t prompt_tokens = 0, generated_tokens = 0;
  std::uint64_t step_tokens = 0, draft_tokens = 0, accepted_tokens = 0;
  std::uint64_t resumed = 0;             // sequences that came from another replica
  std::vector<std::uint64_t> step_sizes; // as scheduler::step_sizes
};

/// Heads of frames (hexgen.proto).
[[nodiscard]] std::string encode(const step_message& m);
[[nodiscard]] std::string encode(const step_result& m);
[[nodiscard]] std::string encode(const collective_head& m);
[[nodiscard]] std::string encode(const submit& m);
[[nodiscard]] std::string encode(const cancel& m);
[[nodiscard]] std::string encode(std::span<const token_chunk> chunks); // of one step and router
[[nodiscard]] std::string encode(const request_failed& m);
[[nodiscard]] std::string encode(const routing_table& m);
[[nodiscard]] std::string encode(const replica_status& m);

/// All throw wire_error. Entries of a step cover their block tables; sequences occur once in it.
[[nodiscard]] step_message decode_step(std::string_view head, const step_bounds& bounds = {});
[[nodiscard]] step_result decode_step_result(std::string_view head);
[[nodiscard]] collective_head decode_collective(std::string_view head);
[[nodiscard]] submit decode_submit(std::string_view head);
[[nodiscard]] cancel decode_cancel(std::string_view head);
[[nodiscard]] std::vector<token_chunk> decode_token_chunks(std::string_view head);
[[nodiscard]] request_failed decode_request_failed(std::string_view head);
[[nodiscard]] routing_table decode_routing_table(std::string_view head);
[[nodiscard]] replica_status decode_replica_status(std::string_view head);

} // namespace hexgen::actors::wire
