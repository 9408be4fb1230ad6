// The generations of a cluster and how one set of them is exchanged for another:
// prepare -> commit -> drain -> release, make-before-break where memory allows.
#pragma once

#include "actors/core/membership_state.hpp"
#include "actors/core/placement.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace hexgen::proto {
class held_generation;
class prepared;
class commit;
class committed;
class released;
} // namespace hexgen::proto

namespace hexgen::actors {

/// adopting: a restarted coordinator waits for the rest of its nodes to report it.
/// parked: does not fit beside what it replaces, waits for that to be released.
enum class generation_phase : std::uint8_t {
  adopting,
  preparing,
  parked,
  committing,
  serving,
  draining,
  releasing
};
[[nodiscard]] const char* to_string(generation_phase phase);

struct generation_record {
  placement where;
  generation_phase phase = generation_phase::preparing;
  std::set<std::string> waiting; // nodes whose answer is missing
  std::uint32_t kv_blocks = 0;   // the least over its ranks
  std::uint64_t weight_bytes = 0;
  double tokens_per_s = 0;    // predicted, at one token per step and a full pipeline
  bool retried = false;       // prepared again after room was made
  bool release_first = false; // drained to make room
  std::string trouble;        // why its preparation failed
  /// What is left of another generation's KV.
  struct leftover {
    std::set<std::pair<std::string, std::uint32_t>> ranks; // node, device
    std::string known;                                     // what is in it, as a part of COMMIT,
    std::uint64_t known_step = 0;                          // after that step
    std::map<std::uint32_t, std::uint64_t> late; // blocks written in steps that may be later
  };
  std::map<std::uint64_t, leftover> kept; // by generation
  time_ms since_ms = 0;                   // in this phase
  std::optional<wire::replica_status> status;
};

struct generation_times {
  std::uint32_t prepare_ms = 120'000;
  std::uint32_t commit_ms = 30'000;
  std::uint32_t drain_ms = 30'000;
  std::uint32_t make_room_ms = 2'000; // drain limit when the memory is needed; the rest moves
  std::uint32_t release_ms = 10'000;
  std::uint32_t adopt_ms = 3'000;
};

/// What is to be done after a call, in order.
struct generation_effects {
  std::vector<std::pair<std::string, transport::frame>> sends; // to nodes, by name
  bool routes_changed = false;
  std::string replan;           // why a new plan is needed; empty: it is not
  bool broken = false;          // a generation that served (or was to serve) was lost
  std::vector<placement> ended; // served, and were lost: what is left keeps their KV for a while
  std::vector<std::string> log;
};

class generation_set {
public:
  /// Generations are numbered from `first` + 1: a coordinator that was restarted does not know all
  /// that its predecessor made, and steps of those may still be on their way.
  explicit generation_set(generation_times times = {}, std::uint64_t first = 0)
      : times_(times), first_generation_(first), last_generation_(first) {}

  struct addition {
    placement where; // epoch and generation are set here
    double tokens_per_s = 0;
  };
  /// Exchanges: `add` is prepared and committed, then `remove` is drained and released.
  /// `need_blocks`: KV blocks that each must hold.
  void exchange(std::vector<addition> add, const std::set<std::uint64_t>& remove,
                std::uint32_t need_blocks, time_ms now, generation_effects& fx);

  void prepared(const std::string& node, const proto::prepared& m, time_ms now,
                generation_effects& fx);
  void committed(const std::string& node, const proto::committed& m, time_ms now,
                 generation_effects& fx);
  void released(const std::string& node, const proto::released& m, time_ms now,
                generation_effects& fx);
  /// A node reports that a stage or device of a generation broke.
  void failed(const std::string& node, std::uint64_t generation, const std::string& why,
              time_ms now, generation_effects& fx);
  void status(const std::string& node, wire::replica_status m);
  void node_lost(const std::string& node, std::uint64_t incarnation, const std::string& why,
                 time_ms now, generation_effects& fx);
  /// A suspect that turned out to be alive: it answers again.
  void node_back(const std::string& node, std::uint64_t incarnation) {
    lost_.erase({node, incarnation});
  }
  /// A plan's rate of a generation that it keeps (an adopted one has none yet).
  void predicted(std::uint64_t generation, double tokens_per_s);
  /// What a node that (re)joins still has: kept, adopted, or released there.
  void held(const std::string& node, std::uint64_t incarnation, const proto::held_generation& m,
            time_ms now, generation_effects& fx);
  void tick(time_ms now, generation_effects& fx);

  [[nodiscard]] const std::map<std::uint64_t, generation_record>& records() const {
    return records_;
  }
  [[nodiscard]] bool exchanging() const; // something is being prepared or committed
  [[nodiscard]] bool adopting() const;
  [[nodiscard]] bool uses(const std::string& node) const;
  /// Two that serve share a device: one was to make way for the other when their coordinator went.
  [[nodiscard]] bool crowded() const;
  [[nodiscard]] double serving_tokens_per_s() const;
  [[nodiscard]] std::size_t serving() const; // generations
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  [[nodiscard]] std::uint64_t failures() const { return failures_; }
  /// Generations that went on with the KV of one that was lost.
  [[nodiscard]] std::uint64_t inherited() const { return inherited_; }
  /// Sequences that moved from one replica to another, as the replicas that took them tell.
  [[nodiscard]] std::uint64_t resumed() const { return resumed_; }

private:
  using iterator = std::map<std::uint64_t, generation_record>::iterator;
  void enter(generation_record& g, generation_phase phase, time_ms now);
  void send_prepare(generation_record& g, time_ms now, generation_effects& fx);
  void inherit(const generation_record& g, proto::commit& m, generation_effects& fx);
  void judge_prepared(iterator i, time_ms now, generation_effects& fx);
  void judge_committed(iterator i, time_ms now, generation_effects& fx);
  void drain(generation_record& g, bool make_room, time_ms now, generation_effects& fx);
  void release(generation_record& g, bool keep, time_ms now, generation_effects& fx);
  void give_up(iterator i, const std::string& why, time_ms now, generation_effects& fx);
  void after_exchange(time_ms now, generation_effects& fx);
  void unpark(time_ms now, generation_effects& fx);
  void erase_released(time_ms now, generation_effects& fx);

  generation_times times_;
  std::map<std::uint64_t, generation_record> records_;   // by generation
  std::set<std::uint64_t> outgoing_;                     // to be drained after the exchange
  std::set<std::pair<std::string, std::uint64_t>> lost_; // nodes that cannot answer a release
  std::uint32_t need_blocks_ = 1;
  std::uint64_t first_generation_ = 0, last_generation_ = 0;
  std::uint64_t epoch_ = 0;
  std::uint64_t failures_ = 0, inherited_ = 0, resumed_ = 0;
};

} // namespace hexgen::actors
