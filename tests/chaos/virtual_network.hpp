// Processes, connections and time of a simulated cluster: one thread, one seed, one history.
#pragma once

#include "actors/core/wire.hpp"
#include "transport/fabric.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace hexgen::tests {

using time_us = std::uint64_t;

/// Chance of one seed.
class dice {
public:
  explicit dice(std::uint64_t seed) : random_(seed) {}
  std::uint64_t draw() { return random_(); }
  /// Uniform in [low, high].
  std::uint64_t in(std::uint64_t low, std::uint64_t high) {
    return low + random_() % (high - low + 1);
  }
  bool one_in(std::uint64_t n) { return random_() % n == 0; }

private:
  std::mt19937_64 random_;
};

/// A step on its way: the message and one activation for each of its tokens.
struct step_packet {
  actors::wire::step_message message;
  std::vector<std::uint64_t> activations;
};

/// What travels: control frames as bytes, the data plane's messages as they are.
using packet = std::variant<transport::frame, std::shared_ptr<const step_packet>,
                            actors::wire::step_result, actors::wire::submit, actors::wire::cancel,
                            actors::wire::token_chunk, actors::wire::request_failed>;

/// A process: what its transport tells it.
class process {
public:
  virtual ~process() = default;
  virtual void on_up(const transport::peer_info& peer) = 0;
  virtual void on_down(const transport::peer_info& peer, const std::string& why) = 0;
  virtual void on_packet(const transport::peer_info& peer, const packet& p) = 0;
  virtual void on_dial_failed(const std::string& address, const std::string& why) = 0;
};

/// Messages of one connection and class arrive in order or, when the connection breaks, not at
/// all. Different connections and classes overtake one another.
class virtual_network {
public:
  using process_id = std::uint64_t; // never used twice

  explicit virtual_network(std::uint64_t seed) : chance(seed) {}

  [[nodiscard]] time_us now() const { return now_; }
  /// Runs the next event; false when there is none before `until`.
  bool step(time_us until);
  /// Runs `task` later unless the process is gone by then; a frozen process is late.
  void after(process_id owner, time_us delay, std::function<void()> task);

  /// `address` is where it can be dialled. `p` outlives its time here.
  process_id start(process* p, const std::string& name, std::uint64_t incarnation,
                   const std::string& address);
  /// Killed: its connections close.
  void kill(process_id id);
  void freeze(process_id id, time_us for_us);
  void thaw(process_id id);

  void dial(process_id from, const std::string& address);
  /// As fabric::dial_through: the relay is a process that both ends are connected with.
  void dial_through(process_id from, transport::peer_id relay, const std::string& name,
                    std::uint64_t incarnation);
  /// As fabric::disconnect.
  void hang_up(transport::peer_id peer);
  /// False: no such connection any more.
  bool send(process_id from, transport::peer_id to, packet p);

  /// Nothing passes from a host to another; hosts are named by their process's name.
  void cut(const std::string& from, const std::string& to);
  void heal(const std::string& from, const std::string& to);
  void heal_all();

  /// Connections that went through a third process.
  [[nodiscard]] std::uint64_t relayed() const { return relayed_; }

  dice chance;

private:
  struct side {
    process_id owner = 0;
    transport::peer_info peer;        // as the owner sees the other side
    bool up = false;                  // the owner has not been told that it is down
    bool told = false;                // that it is up
    time_us next_arrival[2] = {0, 0}; // at the owner, by class
    std::vector<packet> held;         // for the owner, while the way to it is cut
    std::uint64_t silences = 0;       // begun or ended
  };
  struct connection {
    side sides[2];
    process_id relay = 0; // through which it goes; 0: directly
    std::string relay_name;
    bool broken = false;
  };
  struct event {
    time_us at = 0;
    std::uint64_t number = 0;
    process_id owner = 0; // 0: the world
    std::function<void()> task;
    bool operator<(const event& o) const {
      return at != o.at ? at > o.at : number > o.number; // the earliest on top
    }
  };
  struct host {
    process* code = nullptr;
    std::string name, address;
    std::uint64_t incarnation = 0;
    time_us frozen_until = 0;                  // 0: it is not
    std::vector<std::function<void()>> parked; // its events meanwhile
    std::vector<std::uint64_t> connections;
  };

  void push(time_us at, process_id owner, std::function<void()> task);
  void connect(process_id from, process_id to, process_id relay = 0);
  void deliver(std::uint64_t connection, int to_side, packet p);
  void take_down(std::uint64_t connection, int at_side, time_us delay, const std::string& why);
  void watch_silence(std::uint64_t connection, int to_side);
  [[nodiscard]] bool is_cut(const connection& conn, int to_side) const;
  [[nodiscard]] time_us latency();

  time_us now_ = 0;
  std::uint64_t numbers_ = 0, next_process_ = 1, next_connection_ = 1, relayed_ = 0;
  std::priority_queue<event> events_;
  std::map<process_id, host> processes_;
  std::map<std::string, process_id> addresses_;
  std::map<std::uint64_t, connection> connections_;
  std::set<std::pair<std::string, std::string>> cuts_;
};

} // namespace hexgen::tests
