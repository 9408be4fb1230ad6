// A node agent's logic: joins, measures, carries out generations, keeps them when the coordinator
// is away.
#pragma once

#include "actors/core/coordinator_addresses.hpp"
#include "actors/core/link_prober.hpp"
#include "actors/core/placement.hpp"
#include "actors/core/replica_state.hpp"
#include "actors/data/device_worker.hpp"
#include "compute/model_config.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace hexgen::proto {
class commit;
class drain_generation;
class release;
class welcome;
class directory;
} // namespace hexgen::proto

namespace hexgen::actors {

struct agent_options {
  std::string name;
  std::uint64_t incarnation = 0;
  std::string coordinator; // host:port, or several: coordinator_addresses
  std::string address;     // where other nodes can dial this one
  std::string zone;
  double price_per_hour = 0;
  std::vector<device_options> devices;
  std::vector<std::string> descriptions; // of each device, for people
  std::string restarted_because;         // this process replaces one whose device hung
};

struct generation_id {
  std::uint64_t replica = 0, generation = 0;
};

namespace agent_do {
struct dial {
  std::string address;
};
using dial_through = actors::dial_through;
using hang_up = actors::hang_up;
struct send {
  transport::peer_id peer = 0;
  transport::frame message;
};
struct probe {
  transport::peer_id peer = 0;
  std::uint64_t id = 0;
  std::uint32_t ballast_bytes = 0;
};
struct open_model { // model_opened() follows
  wire::model_reference model;
};
struct measure_devices { // device_measured() follows for each, one after the other
  compute::executor_options executor;
  int max_sequence = 0;             // tokens
  std::uint32_t begin = 0, end = 0; // which
};
struct prepare_rank { // rank_prepared() follows
  std::uint32_t device = 0;
  rank_spec spec;
};
struct commit_rank { // rank_committed() follows
  std::uint32_t device = 0;
  generation_id id;
  kv_start start;
};
struct release_rank { // rank_released() follows
  std::uint32_t device = 0;
  generation_id id;
  bool keep = false; // for the generation that follows
};
struct abort_rank {
  std::uint32_t device = 0;
  generation_id id;
};
struct start_replica {
  replica_options options;    // the shell draws the prefix key,
  std::uint64_t inherits = 0; // and adds what the replica of that generation knew, or these
  std::vector<kept_sequence> known;
};
struct drain_replica {
  generation_id id;
  std::uint32_t limit_ms = 0;
};
struct stop_replica { // what is still there moves elsewhere; the shell keeps what it knew
  generation_id id;
  std::string why;
};
/// The agent is over: with `again` as a new incarnation, else with an error. `process`: a thread of
/// it will not end, only a new process helps.
struct leave {
  std::string why;
  bool again = false;
  bool process = false;
};
struct log {
  std::string line;
};
} // namespace agent_do

using agent_effect =
    std::variant<agent_do::dial, agent_do::dial_through, agent_do::hang_up, agent_do::send,
                 agent_do::probe, agent_do::open_model, agent_do::measure_devices,
                 agent_do::prepare_rank, agent_do::commit_rank, agent_do::release_rank,
                 agent_do::abort_rank, agent_do::start_replica, agent_do::drain_replica,
                 agent_do::stop_replica, agent_do::leave, agent_do::log>;
using agent_effects = std::vector<agent_effect>;

/// Functional core: every call takes an event and the time (microseconds of a clock that only goes
/// forward) and returns what is to be done, in order.
class agent_state {
public:
  explicit agent_state(agent_options options);

  agent_effects start(std::uint64_t now_us);
  agent_effects peer_up(const transport::peer_info& peer, std::uint64_t now_us);
  agent_effects peer_down(const transport::peer_info& peer, const std::string& why,
                          std::uint64_t now_us);
  agent_effects dial_failed(const std::string& address, const std::string& why,
                            std::uint64_t now_us);
  agent_effects on_frame(const transport::peer_info& peer, const transport::frame& f,
                         std::uint64_t now_us);
  /// `error` empty: `config` is the served model's.
  agent_effects model_opened(const std::string& error, const compute::model_config& config,
                             std::uint64_t now_us);
  agent_effects device_measured(std::uint32_t device, const device_rates& rates,
                                std::uint64_t now_us);
  agent_effects rank_prepared(std::uint32_t device, generation_id id, const prepare_result& result);
  agent_effects rank_committed(std::uint32_t device, generation_id id, const std::string& error);
  agent_effects rank_released(std::uint32_t device, generation_id id);
  /// A step of it broke on a device here.
  agent_effects rank_failed(generation_id id, const std::string& why);
  agent_effects replica_drained(generation_id id);
  agent_effects replica_status(const wire::replica_status& status);
  agent_effects tick(const std::vector<rank_progress>& progress, std::uint64_t now_us);
  /// What this process has carried for others so far: for the next heartbeat.
  void relayed(std::uint64_t bytes) { relayed_bytes_ = bytes; }

  /// Of a device that has nothing to do; those of one agent at different times.
  static constexpr std::uint64_t measure_again_us = 300'000'000;

  [[nodiscard]] bool joined() const { return joined_; }
  [[nodiscard]] std::size_t held() const { return generations_.size(); }

private:
  struct local_generation {
    placement where;
    std::string head;                             // the PREPARE message that made it
    std::map<std::uint32_t, int> ranks;           // device -> stage
    std::map<std::uint32_t, prepare_result> kept; // by device: what an earlier generation left
    std::vector<kept_sequence> known;             // as the coordinator sent it
    std::uint64_t inherits = 0;                   // as the coordinator said
    std::set<std::uint32_t> waiting;              // devices whose answer is missing
    std::uint32_t kv_blocks = UINT32_MAX;
    std::uint64_t weight_bytes = 0;
    std::string error;
    bool prepared = false, committed = false, failed = false, releasing = false;
    bool replica_here = false;
    bool draining = false; // its replica takes no new requests any more
    // What its steps took against what was predicted, as a moving average: contexts grow.
    double slowness = 1;
    rank_progress seen; // that the average holds
  };
  void join(agent_effects& out);
  void welcome(const proto::welcome& m, std::uint64_t now_us, agent_effects& out);
  void prepare(const transport::frame& f, agent_effects& out);
  void commit(const proto::commit& m, agent_effects& out);
  void drain(const proto::drain_generation& m, agent_effects& out);
  void release(generation_id id, bool keep, agent_effects& out);
  void refused(const std::string& reason, std::uint64_t now_us, agent_effects& out);
  void fail(local_generation& g, const std::string& why, agent_effects& out);
  void watch_devices(const std::vector<rank_progress>& progress, std::uint64_t now_us,
                     agent_effects& out);
  void measure_idle(std::uint64_t now_us, agent_effects& out);
  void note_steps(const std::vector<rank_progress>& progress);
  /// A generation here has it, too.
  [[nodiscard]] bool works_with(const std::string& node) const;
  [[nodiscard]] double predicted_us(const local_generation& g, std::uint64_t steps,
                                    std::uint64_t tokens) const;
  /// A step here that is older hangs.
  [[nodiscard]] std::uint64_t late_after_ms(const std::vector<rank_progress>& progress) const;
  void take(prober_effects effects, agent_effects& out);
  void to_coordinator(transport::frame f, agent_effects& out) const;
  [[nodiscard]] rank_spec spec_of(const placement& p, std::size_t stage, std::size_t rank) const;
  [[nodiscard]] compute::executor_options executor_of(const wire::serve_settings& s) const;
  local_generation* find(generation_id id);

  agent_options options_;
  link_prober links_;
  coordinator_addresses addresses_;
  transport::peer_id coordinator_ = 0; // connected peer; 0: none
  bool joined_ = false, leaving_ = false;
  bool draining_ = false; // as the coordinator said last
  std::uint64_t dial_at_us_ = 0, join_at_us_ = 0;
  int failed_dials_ = 0, refusals_ = 0;
  std::uint64_t beat_at_us_ = 0, beat_ = 0;
  std::uint32_t heartbeat_ms_ = 250;
  std::optional<wire::model_reference> model_;
  wire::serve_settings settings_;
  bool model_open_ = false;
  compute::model_config config_;
  std::vector<device_rates> rates_; // of each device; zeros: not measured
  bool rates_changed_ = false;
  std::vector<std::uint64_t> measure_at_us_; // each device anew, if it is idle until then
  bool measuring_ = false;
  std::uint64_t ticked_us_ = 0, watch_from_us_ = 0;
  std::uint64_t relayed_bytes_ = 0;
  std::map<std::uint64_t, local_generation> generations_;
};

/// Throws std::invalid_argument naming the value.
[[nodiscard]] compute::kernel_kind kernels_of(const std::string& text);
[[nodiscard]] compute::kv_type kv_type_of(const std::string& text);

} // namespace hexgen::actors
