// How the actors of a process are made: each gets its collaborators, none looks them up.
#pragma once

#include "actors/shell/board.hpp"
#include "actors/shell/event_log.hpp"
#include "actors/shell/protocol.hpp"

#include <mutex>
#include <unordered_map>

namespace hexgen::actors {

planner_actor spawn_planner(caf::actor_system& system);

/// References outlive the actor.
struct coordinator_parts {
  transport::fabric& fabric;
  board& shown;
  event_log log;
  planner_actor planner;
  router_actor router; // of the same process
};
coordinator_actor spawn_coordinator(caf::actor_system& system, coordinator_parts parts,
                                    coordinator_options options);

struct router_parts {
  transport::fabric& fabric;
  board& shown;
  event_log log;
};
router_actor spawn_router(caf::actor_system& system, router_parts parts, router_options options,
                          std::shared_ptr<const compute::tokenizer> tokens);

/// The replicas that live in this process, for the transport thread. Thread-safe.
class replica_host {
public:
  explicit replica_host(transport::fabric& fabric) : fabric_(fabric) {}
  void add(generation_id id, replica_actor replica);
  replica_actor remove(generation_id id);
  [[nodiscard]] replica_actor find(generation_id id) const;
  /// Takes all out.
  std::vector<replica_actor> clear();
  /// SUBMIT, CANCEL and STEP_RESULT frames. `from`: 0 for this process. Frames for a generation
  /// that is not here are refused: a submit's router is told to try elsewhere.
  void on_frame(transport::peer_id from, const transport::frame& f);
  void peer_lost(transport::peer_id peer);
  [[nodiscard]] std::uint64_t refused() const;
  /// What the last replica that ended here knew of its KV, for the generation that takes it over;
  /// null when it was of another generation and nothing is `known` by others.
  void keep(std::uint64_t generation, scheduler::kept_blocks blocks);
  std::shared_ptr<const scheduler::kept_blocks> take_kept(std::uint64_t generation,
                                                          const std::vector<kept_sequence>& known);

private:
  transport::fabric& fabric_;
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::pair<std::uint64_t, replica_actor>> replicas_;
  std::uint64_t refused_ = 0;
  std::pair<std::uint64_t, std::shared_ptr<const scheduler::kept_blocks>> kept_;
};

struct replica_parts {
  transport::fabric& fabric;
  data_plane& data;
  std::string node; // own name: stage 0's leader is here
  agent_actor agent;
  event_log log;
  replica_host& host;
};
replica_actor spawn_replica(caf::actor_system& system, replica_parts parts,
                            replica_options options);

struct agent_parts {
  transport::fabric& fabric;
  data_plane& data;
  replica_host& replicas;
  std::vector<std::unique_ptr<device_worker>>& workers;
  event_log log;
  /// Opens the model and its tokenizer (any thread may take long); sends device_event::opened.
  std::function<void(const wire::model_reference&, agent_actor)> open_model;
  std::function<compute::model_config()> config;
  /// As it was opened: the weights need not be there yet.
  std::function<std::shared_ptr<const compute::model_file>()> model;
  model_source weights;
  std::function<std::shared_ptr<const compute::tokenizer>()> tokens;
  std::function<void(const std::string& why, bool again, bool process)> leave;
};
agent_actor spawn_agent(caf::actor_system& system, agent_parts parts, agent_options options);

} // namespace hexgen::actors
