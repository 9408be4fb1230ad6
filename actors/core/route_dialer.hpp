// How a gateway comes to the replicas that it is not connected with.
#pragma once

#include "actors/core/link_prober.hpp"
#include "actors/core/wire.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace hexgen::actors {

using route_dial = std::variant<dial_peer, dial_through>;

/// Functional core. Each node in turn directly and, when that failed or it has no address, through
/// the coordinator, with which both are connected.
class route_dialer {
public:
  using node = std::pair<std::string, std::uint64_t>; // name, incarnation

  /// The coordinator's connection; 0: none.
  void relay(transport::peer_id coordinator) { relay_ = coordinator; }
  [[nodiscard]] std::vector<route_dial> dials(const std::vector<wire::route>& routes,
                                              const std::function<bool(const node&)>& connected,
                                              std::uint64_t now_us);
  void dial_failed(const std::string& address);

  /// peer_up or dial_failed comes first, but for dials that ran into a connection which ended.
  static constexpr std::uint64_t again_us = 3'500'000;
  static constexpr std::uint64_t pause_us = 200'000; // after one that failed

private:
  struct attempt {
    std::string address; // as dial_failed() has it
    std::uint64_t at_us = 0;
    bool direct = false, failed = false;
  };
  transport::peer_id relay_ = 0;
  std::map<node, attempt> attempts_;
};

} // namespace hexgen::actors
