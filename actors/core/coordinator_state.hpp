// The coordinator's logic: membership and measurements in, plans and generations out. Control plane
// only: tokens never pass it.
#pragma once

#include "actors/core/generation_set.hpp"
#include "actors/core/membership_state.hpp"
#include "actors/core/straggler_watch.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace hexgen::actors {

/// The name of the process that holds the coordinator; no node may use it.
inline constexpr const char* coordinator_name = "coordinator";

struct coordinator_options {
  std::uint64_t incarnation = 0;
  membership_times membership;
  generation_times generations;
  wire::model_reference model;
  wire::serve_settings settings;
  scheduler::serving_model shape;
  scheduler::serving_goal goal;
  std::optional<scheduler::manual_layout> layout; // by hand
  std::uint32_t settle_ms = 400;   // a join waits this long for others before a plan is made
  std::uint32_t links_ms = 15'000; // links not reported by then are left out
  std::uint32_t retry_ms = 500;    // after a failed generation; doubles up to 8 s
  double pays_window_s = 600;      // a better plan must win back its reload within this
  double reload_s = 5;
};

struct search_request {
  std::uint64_t id = 0;
  std::vector<scheduler::serving_device> devices;
  std::vector<scheduler::serving_link> links;
  scheduler::serving_model model;
  scheduler::serving_goal goal;
  std::optional<scheduler::manual_layout> layout;
  /// Tried first, in order: what serves and what was lost, with others in the lost devices' places.
  std::vector<scheduler::manual_layout> stand_ins;
};

/// What the planner answers; may compute for a while.
[[nodiscard]] scheduler::serving_plan plan_for(const search_request& r);

/// What the shell carries out, in this order.
struct coordinator_effects {
  std::vector<std::pair<transport::peer_id, transport::frame>> sends;
  std::vector<transport::peer_id> disconnects;
  std::optional<search_request> search;     // plan_done() follows
  std::optional<wire::routing_table> table; // for the router of the same process
  std::vector<std::string> log;             // "event=... key=value ..."
};

/// Functional core: every call takes an event and the time and returns what is to be done.
class coordinator_state {
public:
  explicit coordinator_state(coordinator_options options);

  coordinator_effects peer_down(transport::peer_id peer, const std::string& why, bool goodbye,
                                time_ms now);
  /// Control frames of any authenticated peer; what its role may not send is dropped and logged.
  coordinator_effects on_frame(const transport::peer_info& peer, const transport::frame& f,
                               time_ms now);
  coordinator_effects plan_done(std::uint64_t search, const scheduler::serving_plan& plan,
                                time_ms now);
  /// What the coordinator's process has carried for others so far.
  void relayed(std::uint64_t bytes) { relayed_bytes_ = bytes; }
  /// Every 50 to 100 ms.
  coordinator_effects tick(time_ms now);

  [[nodiscard]] wire::routing_table table() const;
  /// JSON of /cluster (coordinator_status.cpp).
  [[nodiscard]] std::string status_json(time_ms now) const;
  /// Prometheus text of nodes, links, plans and replicas.
  [[nodiscard]] std::string metrics_text() const;
  [[nodiscard]] const membership_state& membership() const { return membership_; }
  [[nodiscard]] const generation_set& generations() const { return generations_; }

private:
  enum class urgency : std::uint8_t { none, improve, repair };
  void join(const transport::peer_info& peer, const transport::frame& f, time_ms now,
            coordinator_effects& fx);
  void heartbeat(const transport::peer_info& peer, const transport::frame& f, time_ms now,
                 coordinator_effects& fx);
  void node_frame(const member& from, const transport::frame& f, time_ms now,
                  coordinator_effects& fx);
  void drain_node(transport::peer_id peer, const transport::frame& f, time_ms now,
                  coordinator_effects& fx);
  void answer_drains(time_ms now, coordinator_effects& fx);
  void take(const membership_changes& changes, time_ms now, coordinator_effects& fx);
  void take(generation_effects g, time_ms now, coordinator_effects& fx);
  void send_directory(coordinator_effects& fx);
  void publish(coordinator_effects& fx);
  void watch_stragglers(time_ms now, coordinator_effects& fx);
  void want_plan(urgency u, const std::string& why, time_ms at);
  void maybe_search(time_ms now, coordinator_effects& fx);
  void apply(const scheduler::serving_plan& plan, time_ms now, coordinator_effects& fx);
  [[nodiscard]] std::vector<scheduler::manual_layout> stand_ins() const;
  [[nodiscard]] placement place(const scheduler::serving_replica& r, std::uint64_t replica) const;
  [[nodiscard]] double estimate(const placement& p) const; // tokens/s

  coordinator_options options_;
  membership_state membership_;
  generation_set generations_;
  std::map<transport::peer_id, std::string> gateways_;
  struct drain_wait {
    transport::peer_id peer = 0; // who asked; 0: nobody waits for the answer
    std::uint64_t id = 0;
    std::string node;
    time_ms since = 0; // this coordinator knows of it
  };
  std::vector<drain_wait> drains_;
  straggler_watch stragglers_;
  time_ms stragglers_at_ = 0; // the next look
  struct work_done {
    std::uint64_t steps = 0, step_tokens = 0, generated_tokens = 0;
  };
  std::map<std::uint64_t, work_done> watched_; // of each generation, at the last look

  urgency wanted_ = urgency::improve;
  std::string wanted_why_ = "start";
  time_ms plan_at_ = 0, links_deadline_ = 0;
  std::uint64_t search_ = 0; // running; 0: none
  std::uint64_t next_search_ = 1;
  urgency searching_for_ = urgency::none;
  membership_state::view view_;  // what the running search sees
  std::vector<placement> ended_; // since the last plan: generation_effects
  scheduler::serving_plan plan_; // the last one
  search_request searched_;      // what it was made of
  std::string missing_ = "no device has joined yet";
  bool served_ = false; // a generation has served: requests may wait for the next
  std::string last_replan_;
  std::uint64_t replans_ = 0, failures_in_a_row_ = 0;
  time_ms last_failure_ms_ = 0;
  std::uint64_t table_number_ = 0;
  std::uint64_t relayed_bytes_ = 0;
};

} // namespace hexgen::actors
