// Which sequences go into a replica's next step: continuous batching as a pure policy.
#pragma once

#include "scheduler/engine/block_pool.hpp"

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

namespace hexgen::scheduler {

struct batcher_options {
  std::uint32_t blocks = 0; // of the replica's KV pool
  int steps_in_flight = 1;  // micro-batches: the number of stages
  /// Steps formed ahead: a sequence may be in that many more steps while one that names it is in
  /// flight. What the step in flight will choose for it stands in the next one as unknown_token.
  int steps_ahead = 0;
  int max_step_tokens = 512; // token budget of one step
  /// For several stages of devices that take longer for a longer step; 0: they do not. Steps alike
  /// in length keep all stages busy, so a step takes prompt tokens for at most three times the
  /// sequences that fall to a step in flight, and its tokens are a multiple of this where prompts
  /// suffice. With sequences enough one more step waits before the slowest stage.
  int even_chunk = 0;
  int max_running = 256;   // sequences that hold blocks
  int max_waiting = 1024;  // more sequences than can run; submit() refuses past it
  int max_sequence = 2048; // tokens of a sequence, prompt and output
  int draft_tokens = 0; // drafts of a sequence in one step by prompt look-up, while places are free
  bool prefix_cache = true;
  hash_key key;
  /// The pool is another replica's that ended: what it held is found again, once it was filled in
  /// the stages that are new (planned_step::refill). Brings its own key.
  std::shared_ptr<const kept_blocks> inherited;
  /// A sequence without a deadline is ordered as if it had this one.
  time_us default_ttft_us = 10'000'000;
  time_us default_tpot_us = 200'000;
  /// One priority class is worth this much waiting: a lower class waits longer, never for ever.
  time_us class_us = 60'000'000;
};

struct sequence_request {
  sequence_id id = 0;        // never used twice
  std::vector<token> tokens; // what is known: prompt and, of a resumed one, the emitted tokens
  int max_new = 1;           // tokens still to come at most
  int priority = 0;          // smaller goes first
  time_us ttft_us = 0;       // deadlines after arrival; 0: none
  time_us tpot_us = 0;
  bool must_take = false; // an accepted request moved here: past max_waiting
};

/// Bounds of step_sizes: a step counts under the first that its tokens do not exceed, or in the
/// last place (vLLM's buckets).
inline constexpr std::array<int, 13> step_size_bounds = {1,   8,    16,   32,   64,   128,  256,
                                                         512, 1024, 2048, 4096, 8192, 16384};

enum class submit_verdict { accepted, full, too_long };

/// In a step's ids: what the step before, still in flight, chooses for the sequence.
inline constexpr token unknown_token = -1;

struct planned_entry {
  sequence_id sequence = 0;
  std::int32_t position = 0; // of the run's first token
  std::int32_t tokens = 0;
  std::int32_t logits = 0; // 1: a token is sampled after the run's last one; more: as many less one
                           // are drafts at the run's end, and one may be sampled after each
  bool opens = false;      // first step that samples for it
  std::vector<block_id> blocks;
};

struct planned_step {
  std::uint64_t number = 0; // from 1, no gaps
  /// The runs are of inherited blocks, no token follows: the stages that are new compute them from
  /// what the stage before kept of its activations, the first one from the ids. No copies.
  bool refill = false;
  std::vector<planned_entry> entries;
  std::vector<token> ids;                            // of all entries, in order
  std::vector<std::pair<block_id, block_id>> copies; // before anything else
};

/// After a run with drafts as many tokens come as were sampled until one was not the draft in its
/// place.
struct sampled_id {
  sequence_id sequence = 0;
  token id = 0;
  bool ends = false;
};

/// Sequences that left with a returned step.
struct step_outcome {
  std::vector<sequence_id> ended;     // by their last token
  std::vector<sequence_id> cancelled; // cancel() came while they were in flight
  std::string error;                  // not empty: the result does not fit the step
};

struct batcher_stats {
  std::uint32_t running = 0, waiting = 0, in_flight = 0;
  std::uint32_t free_blocks = 0, blocks = 0;
  std::uint64_t steps = 0, preemptions = 0;
  std::uint64_t prefix_queries = 0, prefix_hits = 0; // tokens
  std::uint64_t prompt_tokens = 0, generated_tokens = 0;
  std::uint64_t step_tokens = 0;                       // of all steps
  std::uint64_t draft_tokens = 0, accepted_tokens = 0; // accepted: drafts that stood
  std::array<std::uint64_t, step_size_bounds.size() + 1> step_sizes{}; // steps, by their tokens
};

/// Not thread-safe; the same calls give the same steps.
class step_batcher {
public:
  explicit step_batcher(batcher_options options);
  ~step_batcher();
  step_batcher(const step_batcher&) = delete;
  step_batcher& operator=(const step_batcher&) = delete;

  submit_verdict submit(sequence_request request, time_us now);
  /// The next step, or nothing: as many in flight as there may be, or nothing to do.
  std::optional<planned_step> next(time_us now);
  /// The oldest step in flight has returned: a token for every entry that wanted logits, and before
  /// it those of its drafts that stood. A sequence that ended while a step formed ahead names it
  /// gets none there.
  step_outcome complete(std::uint64_t step, std::span<const sampled_id> tokens, time_us now);
  /// True: gone now. False: unknown, or it goes when its steps return (step_outcome::cancelled).
  bool cancel(sequence_id sequence);

  [[nodiscard]] bool knows(sequence_id sequence) const;
  /// Tokens of the sequence's prompt that came from the prefix cache or a fork.
  [[nodiscard]] int cached_tokens(sequence_id sequence) const;
  [[nodiscard]] batcher_stats stats() const;
  /// For the replica that takes this one's pool over: what all stages hold for certain.
  [[nodiscard]] kept_blocks kept() const;
  /// Every block table by sequence, for invariant checks.
  [[nodiscard]] std::map<sequence_id, std::vector<block_id>> tables() const;
  [[nodiscard]] std::uint64_t oldest_in_flight() const; // 0: none

private:
  struct sequence;
  struct forming;
  struct flight {
    std::uint64_t number = 0;
    std::vector<std::pair<sequence_id, bool>> entries; // with: wants a token
    time_us left = 0;
    int tokens = 0;
  };
  using order_key = std::pair<time_us, sequence_id>; // smaller goes first
  enum class started { yes, no_room, held };

  void add_decodes(forming& f);
  void add_prefills(forming& f);
  started start(sequence& s, forming& f);
  [[nodiscard]] const sequence* fork_leader(const sequence& s) const;
  bool make_room(const sequence& s, const forming& f, std::size_t blocks, bool by_class);
  bool extend(sequence& s, const forming& f);
  std::optional<planned_step> form_refill(time_us now);
  [[nodiscard]] std::size_t first_hollow(const sequence& s) const;
  [[nodiscard]] std::vector<token> draft(sequence& s, std::size_t room);
  bool take(sequence& s, int tokens, std::vector<token> draft, forming& f);
  void commit(forming& f, time_us now);
  void publish(sequence& s, std::uint64_t step);
  [[nodiscard]] bool may_join(const sequence& s) const;
  void accept(sequence& s, std::span<const sampled_id> tokens, time_us now);
  void stop_running(sequence& s);
  void erase(sequence& s);
  [[nodiscard]] int prefill_budget(const forming& f) const;
  [[nodiscard]] int slots() const;

  batcher_options options_;
  block_pool pool_;
  std::unordered_map<sequence_id, std::unique_ptr<sequence>> sequences_;
  std::map<order_key, sequence*> waiting_, running_;
  std::unordered_map<std::uint64_t, std::vector<sequence*>> forks_; // running, by prompt hash
  std::deque<flight> flights_;
  std::uint64_t steps_ = 0;
  std::size_t refilling_ = 0; // sequences that wait for inherited blocks
  double us_per_token_ = 0;   // of steps with prefill, smoothed
  batcher_stats counters_;
};

} // namespace hexgen::scheduler
