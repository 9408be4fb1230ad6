// A gateway's process in the simulation: the real router, and clients that tell the checker what
// they see.
#pragma once

#include "actors/core/route_dialer.hpp"
#include "actors/core/router_state.hpp"
#include "tests/chaos/history_checker.hpp"
#include "tests/chaos/simulated_agent.hpp"
#include "tests/chaos/virtual_network.hpp"

#include <functional>
#include <map>
#include <set>
#include <string>

namespace hexgen::tests {

class simulated_gateway final : public process {
public:
  simulated_gateway(virtual_network& net, std::uint64_t incarnation, planted_bug bug,
                    history_checker& clients, std::function<void(const std::string&)> log);
  ~simulated_gateway() override;

  void submit(std::uint64_t ticket, actors::generation_request request);
  void cancel(std::uint64_t ticket);

  void on_up(const transport::peer_info& peer) override;
  void on_down(const transport::peer_info& peer, const std::string& why) override;
  void on_packet(const transport::peer_info& peer, const packet& p) override;
  void on_dial_failed(const std::string& address, const std::string& why) override;

  [[nodiscard]] const actors::router_state& router() const { return router_; }
  [[nodiscard]] virtual_network::process_id id() const { return id_; }

private:
  void tick();
  void dial(const std::string& address);
  void dial_routes();
  void carry_out(actors::router_effects effects);
  void send(const std::string& node, std::uint64_t incarnation, packet p);

  virtual_network& net_;
  planted_bug bug_;
  history_checker& clients_;
  std::function<void(const std::string&)> log_;
  actors::router_state router_;
  virtual_network::process_id id_ = 0;
  std::map<transport::peer_id, transport::peer_info> peers_;
  std::map<std::string, time_us> dialled_; // address -> not again before
  actors::route_dialer dialer_;
  transport::peer_id coordinator_ = 0;
};

} // namespace hexgen::tests
