// The coordinator's process in the simulation.
#pragma once

#include "actors/core/coordinator_state.hpp"
#include "tests/chaos/simulated_agent.hpp"
#include "tests/chaos/virtual_network.hpp"

#include <functional>
#include <map>
#include <string>

namespace hexgen::tests {

class simulated_coordinator final : public process {
public:
  simulated_coordinator(virtual_network& net, std::uint64_t incarnation, planted_bug bug,
                        bool stage_recovery, std::function<void(const std::string&)> log);
  ~simulated_coordinator() override;

  void on_up(const transport::peer_info& peer) override;
  void on_down(const transport::peer_info& peer, const std::string& why) override;
  void on_packet(const transport::peer_info& peer, const packet& p) override;
  void on_dial_failed(const std::string& address, const std::string& why) override;

  [[nodiscard]] virtual_network::process_id id() const { return id_; }
  [[nodiscard]] const actors::coordinator_state& state() const { return state_; }

  /// What every coordinator of the simulation serves with.
  [[nodiscard]] static actors::coordinator_options options(std::uint64_t incarnation,
                                                           bool stage_recovery = false);

private:
  void tick();
  void carry_out(actors::coordinator_effects fx);
  [[nodiscard]] std::uint64_t now_ms() const { return net_.now() / 1000; }

  virtual_network& net_;
  planted_bug bug_;
  std::function<void(const std::string&)> log_;
  actors::coordinator_state state_;
  virtual_network::process_id id_ = 0;
  std::map<transport::peer_id, transport::peer_info> peers_;
  std::map<std::string, std::pair<transport::peer_info, transport::frame>> last_beats_; // by node
};

} // namespace hexgen::tests
