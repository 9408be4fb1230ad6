// A node agent's process in the simulation: the real logic of agent and replica, around devices
// that only remember.
#pragma once

#include "actors/core/agent_state.hpp"
#include "actors/core/coordinator_state.hpp"
#include "actors/core/replica_state.hpp"
#include "actors/data/known_tables.hpp"
#include "tests/chaos/layered_model.hpp"
#include "tests/chaos/virtual_network.hpp"

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace hexgen::tests {

/// Faults that are built in on purpose, to see them caught.
enum class planted_bug : std::uint8_t {
  none,
  skip_generation_check, // a device runs steps of any generation of its replica and stage
  drop_last_token,       // a resubmission forgets the journal's last entry
  forget_lease,          // a silent node's lease is renewed for ever
  skip_refill,           // a stage that is new takes inherited blocks for full
  forget_memory,         // a device promises KV blocks that another generation has
};

struct simulated_device {
  std::uint64_t memory_bytes = 0; // for weights and KV, as the planner sees it
  std::uint32_t kv_blocks = 40;   // what fits beside the weights, over all generations
  time_us step_us = 2'000, load_us = 100'000;
  bool ahead = false; // a replica of it alone forms steps ahead
  bool port = true;   // others can dial it
};

class simulated_agent final : public process {
public:
  /// What the simulation is told.
  struct reports {
    std::function<void(const std::string&)> violation;
    std::function<void(bool again)> leave; // the process ends itself
    std::function<void(const std::string&)> log;
  };

  simulated_agent(virtual_network& net, std::string name, std::uint64_t incarnation,
                  simulated_device device, planted_bug bug, reports tell);
  ~simulated_agent() override;

  /// As operator: asks the coordinator to drain this node, again until there is an answer.
  void ask_drain();
  /// Steps stop completing until `for_us` has passed or, unless `deaf`, their generation is
  /// released.
  void hang(time_us for_us, bool deaf = false);
  void kill();

  void on_up(const transport::peer_info& peer) override;
  void on_down(const transport::peer_info& peer, const std::string& why) override;
  void on_packet(const transport::peer_info& peer, const packet& p) override;
  void on_dial_failed(const std::string& address, const std::string& why) override;

  [[nodiscard]] virtual_network::process_id id() const { return id_; }
  /// Sequences and blocks that are held although nothing runs: for the end of a simulation.
  [[nodiscard]] std::string leftovers() const;
  /// Runs of inherited blocks that a new stage here computed.
  [[nodiscard]] std::uint64_t refilled() const { return refilled_; }
  [[nodiscard]] std::uint64_t refused_frames() const { return refused_frames_; }

private:
  using key = std::pair<std::uint64_t, std::uint64_t>; // replica, generation
  struct rank {
    actors::rank_spec spec;
    std::unique_ptr<layered_stage> kept; // of an earlier generation, until committed
    actors::kv_start start;
    actors::known_tables known;           // on the last stage
    std::unique_ptr<layered_stage> stage; // when committed
    std::uint32_t kv_blocks = 0;
    std::map<std::uint64_t, actors::wire::sequence_open> open; // on the last stage
    std::map<std::uint64_t, int> generated;
    std::map<std::uint64_t, compute::sampled_token> last;
    std::uint64_t last_step = 0;
    bool aborted = false;
  };
  void tick();
  void carry_out(actors::agent_effects effects);
  void carry_out(const key& who, actors::replica_effects effects);
  void prepare(const actors::agent_do::prepare_rank& what);
  void commit(const actors::agent_do::commit_rank& what);
  void abort_rank(const key& who);
  void release_rank(const actors::agent_do::release_rank& what);
  void take_step(std::shared_ptr<const step_packet> p);
  void run_next();
  void finish_step(const std::shared_ptr<const step_packet>& p);
  static void fill_unknown(const rank& r, step_packet& p);
  void sample(rank& r, const step_packet& p);
  void take_result(const actors::wire::step_result& m);
  void check_writers(const key& who, const actors::wire::step_message& m);
  bool send_to(const actors::node_process& to, packet p);
  void drain_limit(const key& who, std::uint32_t limit_ms);
  void timer(time_us delay, std::function<void()> task);

  virtual_network& net_;
  std::string name_;
  simulated_device device_;
  planted_bug bug_;
  reports tell_;
  actors::agent_state agent_;
  virtual_network::process_id id_ = 0;
  std::map<transport::peer_id, transport::peer_info> peers_;
  std::map<key, std::unique_ptr<actors::replica_state>> replicas_;
  std::map<key, rank> ranks_;
  /// Of the last rank and of the last replica that ended here.
  std::optional<rank> kept_;
  std::pair<std::uint64_t, std::shared_ptr<const scheduler::kept_blocks>> known_;
  time_us keep_until_ = 0;
  // By block: which sequence writes it, and in which step in flight.
  std::map<key, std::map<std::uint32_t, std::pair<std::uint64_t, std::uint64_t>>> writers_;
  std::deque<std::shared_ptr<const step_packet>> queue_; // the device thread's
  bool running_ = false, deaf_ = false, drain_asked_ = false;
  time_us step_from_ = 0, hung_until_ = 0;
  std::uint64_t step_tokens_ = 0;
  key step_of_{};
  std::uint64_t refused_frames_ = 0, refilled_ = 0;
};

} // namespace hexgen::tests
