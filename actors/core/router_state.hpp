// The router of one gateway: owns its requests' journals, places them, moves them, and turns tokens
// into text.
#pragma once

#include "actors/core/generation.hpp"
#include "actors/core/journal.hpp"
#include "actors/core/wire.hpp"
#include "scheduler/engine/routing_policy.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

namespace hexgen::actors {

using ticket_id = std::uint64_t;
using time_us = scheduler::time_us;

struct router_options {
  std::uint64_t first_request = 1; // drawn by the shell: request numbers are unique per incarnation
  time_us wait_us = 30'000'000;    // how long a request waits for a replica that takes it
  time_us begun_wait_us = 300'000'000; // and one that already streams: its client keeps what it has
  time_us adopt_us = 5'000'000; // a restarted coordinator has this long to hear of all replicas
  time_us backoff_us = 50'000;  // after a replica refused; doubles up to 2 s
  int attempts_without_progress = 64;
  scheduler::routing_options routing;
};

/// To the node where the replica lives. When it cannot be sent, the shell calls node_down.
struct send_submit {
  std::string node;
  std::uint64_t incarnation = 0;
  wire::submit message;
};
struct send_cancel {
  std::string node;
  std::uint64_t incarnation = 0;
  wire::cancel message;
};
struct deliver_event {
  ticket_id ticket = 0;
  generation_event event;
};
struct refuse_submit {
  ticket_id ticket = 0;
  submit_refused why;
};
using router_effect = std::variant<send_submit, send_cancel, deliver_event, refuse_submit>;
using router_effects = std::vector<router_effect>;

struct router_stats {
  std::size_t sequences = 0; // open
  std::size_t waiting = 0;   // without a replica now
  std::uint64_t moved = 0;   // resubmissions
  std::uint64_t stale_chunks = 0, gaps = 0, refused = 0, failed = 0, finished = 0, cancelled = 0;
};

/// Functional core: every call takes an event and the time and returns what is to be done, in
/// order.
class router_state {
public:
  explicit router_state(router_options options);
  ~router_state();

  /// The served model's tokenizer; requests are refused (503) until it is known.
  void set_tokenizer(std::shared_ptr<const compute::tokenizer> tokens);

  /// Exactly one refuse_submit, or for each choice events of which the last has a finish reason or
  /// an error. `ticket` is the caller's and new.
  router_effects submit(ticket_id ticket, generation_request request, time_us now);
  /// No event of the ticket follows. Unknown tickets are fine.
  router_effects cancel(ticket_id ticket, time_us now);

  /// The connection to the coordinator is gone or new: running replicas go on, the next table is
  /// taken whatever its number, and for `adopt_us` nothing moves because a table does not name it.
  void coordinator_changed(time_us now);
  /// A table older than the last one is ignored. Sequences on generations that it does not name
  /// move.
  router_effects routing_table(wire::routing_table table, time_us now);
  /// Only nodes that are up get requests. A new incarnation is a new node.
  router_effects node_up(const std::string& node, std::uint64_t incarnation, time_us now);
  /// Suspect is enough: its sequences move at once.
  router_effects node_down(const std::string& node, std::uint64_t incarnation, time_us now);
  router_effects token_chunk(const wire::token_chunk& m, time_us now);
  router_effects request_failed(const wire::request_failed& m, time_us now);
  /// Every 50 to 250 ms: gives waiting sequences a new try and ends those that waited too long.
  router_effects tick(time_us now);

  /// Empty when requests can be served, else what is missing.
  [[nodiscard]] std::string not_ready() const;
  [[nodiscard]] const wire::routing_table& table() const;
  [[nodiscard]] router_stats stats() const;

private:
  struct sequence;
  struct ticket;
  struct place;
  using place_key = std::pair<std::uint64_t, std::uint64_t>; // replica, generation
  [[nodiscard]] bool reachable(const place& p) const;
  [[nodiscard]] bool usable(const place& p, time_us now) const;
  void tell_cancel(const sequence& s, router_effects& out) const;
  bool dispatch(sequence& s, time_us now, router_effects& out);
  void leave(sequence& s);
  void start_wait(sequence& s, time_us now) const;
  void move(sequence& s, bool tell_old, time_us now, router_effects& out);
  void move_all_from(const place_key& from, bool tell_old, time_us now, router_effects& out);
  void drop_unnamed(time_us now, router_effects& out);
  void retry_waiting(time_us now, router_effects& out);
  void deliver_tokens(sequence& s, const wire::token_chunk& m, router_effects& out);
  void fail(sequence& s, int status, const std::string& message, router_effects& out);
  void close(std::uint64_t request, bool tell_replica, router_effects& out);
  void refuse_ticket(ticket_id id, submit_refused why, router_effects& out);
  [[nodiscard]] int retry_after_s() const;
  [[nodiscard]] std::size_t most_sequences() const;

  router_options options_;
  scheduler::routing_policy policy_;
  std::shared_ptr<const compute::tokenizer> tokens_;
  wire::routing_table table_;
  bool has_table_ = false;
  time_us adopt_until_ = 0; // 0: the coordinator is not new
  std::map<place_key, place> places_;
  std::set<std::pair<std::string, std::uint64_t>> up_;           // connected: node, incarnation
  std::map<std::uint64_t, std::unique_ptr<sequence>> sequences_; // by request
  std::unordered_map<ticket_id, std::unique_ptr<ticket>> tickets_;
  std::set<std::uint64_t> waiting_; // requests without a place
  std::uint64_t next_request_;
  router_stats stats_;
};

} // namespace hexgen::actors
