// Who belongs to the cluster: leases, incarnations, suspicion, and what each member measured.
#pragma once

#include "scheduler/serving_planner.hpp"
#include "transport/fabric.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace hexgen::proto {
class join;
class heartbeat;
class link_report;
class device_report;
} // namespace hexgen::proto

namespace hexgen::actors {

using time_ms = std::uint64_t; // of a clock that only goes forward

/// All settable (`hexgen serve --heartbeat-ms ...`).
struct membership_times {
  std::uint32_t heartbeat_ms = 250;
  std::uint32_t suspect_ms = 1000;   // silence
  std::uint32_t gone_ms = 2000;      // silence
  std::uint32_t redial_ms = 400;     // a closed connection has this long to come back
  std::uint32_t measure_ms = 60'000; // a member that has not measured itself by then is left out
  std::uint32_t flap_window_ms = 60'000; // departures within it damp the next join
};

/// ready: measured. suspect: not planned with, its generations have failed.
enum class member_phase : std::uint8_t { measuring, ready, suspect };

struct member_device {
  std::uint32_t index = 0;
  std::string kind, description;
  std::uint64_t memory_bytes = 0;
  std::uint32_t threads = 0;
  double speed = 1;
  double decode_us_per_layer = 0, prefill_us_per_token_layer = 0, decode_us_head = 0;
  scheduler::serving_sizes sizes{}; // of the served model there
};

struct member_link {
  std::string kind;
  double latency_us = 0, bandwidth_gbps = 0;
  bool reachable = false;
  std::string detail;
  std::string relay; // through whom; empty: directly
};

struct member {
  std::string name;
  std::uint64_t incarnation = 0;
  transport::peer_id peer = 0; // 0: not connected now
  std::string address, zone;
  member_phase phase = member_phase::measuring;
  bool draining = false;
  std::string suspicion;         // why it is suspect
  std::string restarted_because; // its process replaced one whose device hung
  bool hung = false;             // suspect for a late step although its heart beats
  time_ms joined_ms = 0, heard_ms = 0, suspect_ms = 0;
  time_ms plannable_ms = 0; // damping of flapping nodes
  std::vector<member_device> devices;
  std::map<std::string, member_link> links; // by peer
  std::optional<double> load_progress;      // share of the shards that it is loading
  std::uint64_t relayed_bytes = 0;          // that it carried for others
};

struct membership_change {
  enum class kind : std::uint8_t { joined, ready, links, rates, suspect, recovered, gone };
  kind what = kind::joined;
  std::string node;
  std::uint64_t incarnation = 0;
  std::string why;
};
using membership_changes = std::vector<membership_change>;
/// As in the log: event=node_...
[[nodiscard]] const char* to_string(membership_change::kind what);

struct join_outcome {
  std::string refused;   // empty: a member now
  bool rejoined = false; // the same incarnation came back
  membership_changes changes;
};

/// Functional core: every call takes an event and the time.
class membership_state {
public:
  explicit membership_state(membership_times times = {}) : times_(times) {}

  /// Refuses names that are in use (duplicates), incarnations that were declared gone (ghosts) and
  /// reports out of range. A new incarnation of a name whose connection is gone replaces it.
  join_outcome join(const transport::peer_info& peer, const proto::join& m, time_ms now);
  membership_changes heartbeat(transport::peer_id peer, const proto::heartbeat& m, time_ms now);
  membership_changes link_report(transport::peer_id peer, const proto::link_report& m, time_ms now);
  membership_changes connection_lost(transport::peer_id peer, const std::string& why, bool goodbye,
                                     time_ms now);
  /// A late step behind a healthy heartbeat; cleared by progress().
  membership_changes late_step(const std::string& node, const std::string& why, time_ms now);
  membership_changes progress(const std::string& node, time_ms now);
  membership_changes tick(time_ms now);

  bool set_draining(const std::string& node, bool draining);
  /// Whoever left often lately need not wait any longer.
  void end_damping();
  [[nodiscard]] const std::map<std::string, member>& members() const { return members_; }
  [[nodiscard]] const member* find(const std::string& node) const;
  [[nodiscard]] const member* find(transport::peer_id peer) const;
  [[nodiscard]] const membership_times& times() const { return times_; }
  /// The same process, connected and not suspect.
  [[nodiscard]] bool alive(const std::string& node, std::uint64_t incarnation) const;
  /// A member is still measuring itself (within its time).
  [[nodiscard]] bool measuring(time_ms now) const;
  /// Every pair of ready members was measured from at least one side.
  [[nodiscard]] bool links_known() const;

  struct view {
    std::vector<scheduler::serving_device> devices; // by node name, then index
    std::vector<std::uint64_t> incarnations;        // of each device's node
    std::vector<scheduler::serving_link> links;
    time_ms next_ms = 0; // a damped member becomes plannable then; 0: none
  };
  /// What the planner may use now.
  [[nodiscard]] view plannable(time_ms now) const;

private:
  member* by_peer(transport::peer_id peer);
  void leave(std::string name, const std::string& why, time_ms now, membership_changes& out);
  void suspect(member& m, const std::string& why, time_ms now, membership_changes& out);
  /// At least one of the two said that they do not reach each other, and none that they do.
  [[nodiscard]] bool apart(const std::string& a, const std::string& b) const;
  void settle(member& m, time_ms now, membership_changes& out);

  membership_times times_;
  std::map<std::string, member> members_;
  std::map<std::string, std::uint64_t> ghosts_; // last incarnation declared gone, by name
  std::map<std::string, std::vector<time_ms>> departures_;
  time_ms ticked_ms_ = 0;
};

} // namespace hexgen::actors
