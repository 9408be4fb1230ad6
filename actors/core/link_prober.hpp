// An agent's links to the other agents: who dials whom, and what latency and bandwidth they have.
#pragma once

#include "transport/fabric.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace hexgen::actors {

struct link_peer {
  std::string name;
  std::uint64_t incarnation = 0;
  std::string address;
};

struct link_result {
  std::string peer;
  transport::link_kind kind = transport::link_kind::tls;
  /// Moving averages over the rounds.
  double latency_us = 0;     // one way: half of the fastest round trip
  double bandwidth_gbps = 0; // 10^9 bit/s, of pieces of `ballast_bytes`
  bool reachable = false;
  std::string detail;
  std::string relay; // through whom; empty: directly
};

struct dial_peer {
  std::string address;
};
/// As fabric::dial_through.
struct dial_through {
  transport::peer_id relay = 0;
  std::string name;
  std::uint64_t incarnation = 0;
};
struct send_probe {
  transport::peer_id peer = 0;
  std::uint64_t id = 0;
  std::uint32_t ballast_bytes = 0;
};
struct hang_up {
  transport::peer_id peer = 0;
};
using prober_effect = std::variant<dial_peer, dial_through, send_probe, link_result, hang_up>;
using prober_effects = std::vector<prober_effect>;

/// Functional core; times in microseconds of a clock that only goes forward. The smaller name of a
/// pair dials; the other tries too when nothing has come of that for a while. When neither can dial
/// the other, the smaller name asks those who are connected with it to relay: other agents first,
/// the nearest of them, and `last_relay` (the coordinator) only when all of these could not. A link
/// through `last_relay` is given up for an agent that may relay by now, while nobody uses it.
class link_prober {
public:
  /// `own_address` is empty where nobody can dial this process.
  link_prober(std::string own_name, std::string own_address, std::string last_relay = {})
      : own_(std::move(own_name)), own_address_(std::move(own_address)),
        last_relay_(std::move(last_relay)) {}

  prober_effects directory(std::vector<link_peer> peers, std::uint64_t now_us);
  /// Of every node that is connected, the coordinator too.
  prober_effects peer_up(const transport::peer_info& peer, std::uint64_t now_us);
  prober_effects peer_down(transport::peer_id peer, const std::string& why, std::uint64_t now_us);
  prober_effects dial_failed(const std::string& address, const std::string& why,
                             std::uint64_t now_us);
  /// `at_us`: when the reply reached this process.
  prober_effects probe_reply(transport::peer_id peer, std::uint64_t id, std::uint64_t at_us);
  /// `in_use`: whether a generation needs the peer, whose link then stays as it is; none: no.
  prober_effects tick(std::uint64_t now_us,
                      const std::function<bool(const std::string&)>& in_use = {});
  /// The coordinator is new and knows nothing: every finished measurement again.
  [[nodiscard]] std::vector<link_result> results() const;

  static constexpr std::uint32_t ballast_bytes = 1U << 20;
  static constexpr int small_probes = 12, big_probes = 4;
  static constexpr std::uint64_t again_us = 60'000'000;       // measured anew in the background
  static constexpr std::uint64_t relay_after_us = 5'000'000;  // when both sides may have dialled
  static constexpr std::uint64_t move_again_us = 600'000'000; // after a move to another relay

private:
  struct link {
    link_peer who;
    transport::peer_id peer = 0;
    transport::link_kind kind = transport::link_kind::tls;
    std::uint64_t dial_at_us = 0;
    int failed_dials = 0;
    std::uint64_t relay_at_us = 0;           // when to ask for a relay
    std::string relay;                       // that was asked, or is used; empty: none
    std::map<std::string, int> relays_tried; // how often, since the last time that one could
    std::uint64_t probe = 0, sent_us = 0;    // in flight; 0: none
    int done = 0;                            // probes of this round
    std::uint64_t best_small_us = 0, best_big_us = 0;
    std::uint64_t next_round_us = 0;
    std::uint64_t move_at_us = 0; // to a better relay, not before
    bool measured = false, told_unreachable = false;
    link_result last;
  };
  void next_probe(link& l, std::uint64_t now_us, prober_effects& out);
  void finish(link& l, std::uint64_t now_us, prober_effects& out);
  void unreachable(link& l, const std::string& why, prober_effects& out);
  [[nodiscard]] const transport::peer_info* next_relay(const link& l) const;
  void ask_relay(link& l, std::uint64_t now_us, prober_effects& out);
  [[nodiscard]] bool worth_moving(const link& l, std::uint64_t now_us) const;

  std::string own_, own_address_, last_relay_;
  std::map<std::string, link> links_;
  std::map<std::string, transport::peer_info> up_; // connected, maybe not in the directory yet
  std::uint64_t next_id_ = 1;
};

} // namespace hexgen::actors
