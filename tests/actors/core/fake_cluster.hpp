// A coordinator and its agents in one thread: virtual clock, simulated network and devices.
#pragma once

#include "actors/core/agent_state.hpp"
#include "actors/core/coordinator_state.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace hexgen::actors::test {

struct fake_device {
  std::uint64_t memory_mib = 200;
  double us_per_layer = 100;
  std::uint64_t layer_mib = 4;
};

/// One agent process. Its devices answer at once and hold `layers` x layer_mib, one KV block a
/// MiB.
struct fake_node {
  std::string name;
  std::uint64_t incarnation = 0;
  std::unique_ptr<agent_state> state;
  std::vector<fake_device> devices;
  bool frozen = false; // neither sends nor hears, its connections stay
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t> held_mib; // device, generation
  std::set<std::uint64_t> replicas;                                          // that live here
  std::vector<rank_progress> progress;                                       // as its devices tell
  std::string left;                                                          // why it left
  bool left_to_return = false, left_process = false;
  bool stuck = false; // its device threads do not end: nothing is released
};

class fake_cluster {
public:
  static constexpr int layers = 30;

  explicit fake_cluster(std::uint64_t coordinator_incarnation = 1) {
    options_.incarnation = coordinator_incarnation;
    options_.model = {"tiny", "/models/tiny.gguf", 1000, "digest"};
    options_.settings.kernels = "fast";
    options_.settings.kv_type = "f32";
    options_.settings.max_sequence = 256;
    options_.settings.max_step_tokens = 64;
    options_.settings.heartbeat_ms = 250;
    options_.shape.layers = layers;
    options_.shape.hidden = 576;
    options_.shape.kv_heads = 3;
    options_.shape.layer_bytes = 4ULL << 20;
    options_.shape.embedding_bytes = options_.shape.head_bytes = 1ULL << 20;
    options_.shape.kv_bytes_per_token_layer = 1024;
    options_.shape.activation_bytes = 1ULL << 20;
    options_.goal.kv_tokens = 64;
    coordinator = std::make_unique<coordinator_state>(options_);
  }

  coordinator_options& options() { return options_; }
  void apply_options() { coordinator = std::make_unique<coordinator_state>(options_); }

  fake_node& add(const std::string& name, std::vector<fake_device> devices,
                 std::uint64_t incarnation = 1) {
    auto& n = nodes[name];
    n = fake_node{};
    n.name = name;
    n.incarnation = incarnation;
    n.devices = std::move(devices);
    agent_options o;
    o.name = name;
    o.incarnation = incarnation;
    o.coordinator = "coordinator:7600";
    o.address = name + ":1";
    for (std::size_t i = 0; i < n.devices.size(); ++i) {
      device_options d;
      d.index = static_cast<std::uint32_t>(i);
      d.memory_bytes = n.devices[i].memory_mib << 20;
      o.devices.push_back(d);
    }
    n.state = std::make_unique<agent_state>(std::move(o));
    carry_out(n, n.state->start(now_us));
    return n;
  }

  /// The process ends: its connections close.
  void kill(const std::string& name) {
    for (auto i = connections_.begin(); i != connections_.end();) {
      const auto [id, c] = *i;
      if (c.a != name && c.b != name) {
        ++i;
        continue;
      }
      i = connections_.erase(i);
      const auto other = c.a == name ? c.b : c.a;
      down(other, id, name, transport::down_reason::closed);
    }
    nodes.erase(name);
  }

  /// The coordinator's process ends and a new one starts.
  void restart_coordinator(std::uint64_t incarnation) {
    for (auto i = connections_.begin(); i != connections_.end();) {
      const auto [id, c] = *i;
      if (c.b != coordinator_name) {
        ++i;
        continue;
      }
      i = connections_.erase(i);
      down(c.a, id, coordinator_name, transport::down_reason::closed);
    }
    options_.incarnation = incarnation;
    coordinator = std::make_unique<coordinator_state>(options_);
    table = {};
    crash_at.clear();
    crashed = false;
  }

  void run_ms(std::uint64_t ms) {
    for (std::uint64_t t = 0; t < ms; t += 25) {
      now_us += 25'000;
      if (!crashed)
        carry_out(coordinator->tick(now_us / 1000));
      for (auto& [name, n] : nodes)
        if (!n.frozen)
          carry_out(n, n.state->tick(n.progress, now_us));
      deliver();
    }
  }

  /// A client's or operator's frame to the coordinator; answers land in `answers`.
  void ask(const transport::peer_info& who, transport::frame f) {
    carry_out(coordinator->on_frame(who, f, now_us / 1000));
    deliver();
  }

  /// The replica on `node` tells how it is.
  void report(const std::string& node, const wire::replica_status& status) {
    auto& n = nodes.at(node);
    carry_out(n, n.state->replica_status(status));
    deliver();
  }

  [[nodiscard]] const generation_record* serving() const {
    for (const auto& [id, g] : coordinator->generations().records())
      if (g.phase == generation_phase::serving)
        return &g;
    return nullptr;
  }
  [[nodiscard]] bool released_on(const std::string& node, std::uint64_t generation) const {
    return releases_.count({node, generation}) != 0;
  }
  [[nodiscard]] bool logged(const std::string& part) const {
    for (const auto& line : log)
      if (line.find(part) != std::string::npos)
        return true;
    return false;
  }

  std::uint64_t now_us = 1'000'000;
  std::unique_ptr<coordinator_state> coordinator;
  std::map<std::string, fake_node> nodes;
  wire::routing_table table;
  std::vector<std::string> log;
  std::vector<transport::frame> answers; // to peers that are no nodes
  std::set<std::string> unreachable;     // addresses that nobody can dial
  bool relays = false;                   // somebody joins those who cannot dial each other
  std::uint32_t most_kv_blocks = UINT32_MAX;
  /// The coordinator stops for good when it logs this event: with all that it sends along with it,
  /// or before any of that. restart_coordinator() makes the next one.
  std::string crash_at;
  bool crash_unsent = false, crashed = false;

private:
  struct connection {
    std::string a, b; // a dialled b
  };
  struct letter {
    std::string to;
    transport::peer_info from;
    transport::frame f;
  };

  transport::peer_info peer(std::uint64_t id, const std::string& name) {
    transport::peer_info p;
    p.id = id;
    p.name = name;
    p.incarnation = name == coordinator_name ? options_.incarnation : nodes.at(name).incarnation;
    return p;
  }

  void connect(const std::string& a, const std::string& b) {
    const auto id = next_connection_++;
    connections_[id] = {a, b};
    if (b != coordinator_name)
      carry_out(nodes.at(b), nodes.at(b).state->peer_up(peer(id, a), now_us));
    carry_out(nodes.at(a), nodes.at(a).state->peer_up(peer(id, b), now_us));
  }

  void down(const std::string& at, std::uint64_t id, const std::string& other,
            transport::down_reason) {
    transport::peer_info p;
    p.id = id;
    p.name = other;
    p.incarnation = other == coordinator_name ? options_.incarnation : nodes.at(other).incarnation;
    if (at == coordinator_name)
      carry_out(coordinator->peer_down(id, "closed", false, now_us / 1000));
    else if (auto i = nodes.find(at); i != nodes.end())
      carry_out(i->second, i->second.state->peer_down(p, "closed", now_us));
  }

  void send(const std::string& from, std::uint64_t id, transport::frame f) {
    auto c = connections_.find(id);
    if (c == connections_.end())
      return;
    const auto& to = c->second.a == from ? c->second.b : c->second.a;
    letters_.push_back({to, peer(id, from), std::move(f)});
  }

  void deliver() {
    std::deque<letter> kept; // for the frozen: they read it when they wake
    while (!letters_.empty()) {
      auto l = std::move(letters_.front());
      letters_.pop_front();
      if (auto n = nodes.find(l.to); n != nodes.end() && n->second.frozen) {
        kept.push_back(std::move(l));
        continue;
      }
      if (auto n = nodes.find(l.from.name); n != nodes.end() && n->second.frozen)
        continue;
      if (l.to == coordinator_name) {
        if (!crashed)
          carry_out(coordinator->on_frame(l.from, l.f, now_us / 1000));
      } else if (auto i = nodes.find(l.to); i != nodes.end()) {
        if (l.f.type == proto::PROBE) {
          proto::probe m;
          proto::probe_reply r;
          m.ParseFromString(l.f.head);
          r.set_id(m.id());
          send(l.to, l.from.id,
               {transport::traffic::control, proto::PROBE_REPLY, r.SerializeAsString(), {}});
        } else {
          carry_out(i->second, i->second.state->on_frame(l.from, l.f, now_us));
        }
      }
    }
    letters_ = std::move(kept);
  }

  void carry_out(coordinator_effects fx) {
    log.insert(log.end(), fx.log.begin(), fx.log.end());
    crashed = !crash_at.empty() && std::any_of(fx.log.begin(), fx.log.end(), [&](const auto& line) {
      return line.find(crash_at + " ") == 0;
    });
    if (crashed && crash_unsent)
      return;
    for (auto& [id, f] : fx.sends) {
      if (f.type == proto::RELEASE && connections_.count(id) != 0) {
        proto::release m;
        m.ParseFromString(f.head);
        releases_.emplace(connections_[id].a, m.generation());
      }
      if (connections_.count(id) != 0)
        send(coordinator_name, id, std::move(f));
      else
        answers.push_back(std::move(f));
    }
    if (fx.table)
      table = *fx.table;
    if (fx.search && !crashed) {
      const auto& r = *fx.search;
      carry_out(coordinator->plan_done(r.id, plan_for(r), now_us / 1000));
    }
  }

  void carry_out(fake_node& n, agent_effects effects) {
    for (auto& e : effects)
      std::visit([&](auto& x) { perform(n, x); }, e);
  }
  void perform(fake_node& n, agent_do::dial& x) {
    const auto to = x.address.substr(0, x.address.find(':'));
    if (unreachable.count(x.address) == 0 && (to == coordinator_name || nodes.count(to) != 0))
      connect(n.name, to);
    else
      carry_out(n, n.state->dial_failed(x.address, "refused", now_us));
  }
  void perform(fake_node& n, agent_do::dial_through& x) {
    if (relays && nodes.count(x.name) != 0)
      connect(n.name, x.name);
    else
      carry_out(n, n.state->dial_failed(transport::relayed_address(x.name, coordinator_name),
                                        "refused", now_us));
  }
  void perform(fake_node&, agent_do::hang_up&) {} // no link here has a relay's name
  void perform(fake_node& n, agent_do::send& x) { send(n.name, x.peer, std::move(x.message)); }
  void perform(fake_node& n, agent_do::probe& x) {
    proto::probe m;
    m.set_id(x.id);
    send(n.name, x.peer, {transport::traffic::control, proto::PROBE, m.SerializeAsString(), {}});
  }
  void perform(fake_node& n, agent_do::open_model&) {
    compute::model_config c;
    c.layers = layers;
    c.hidden = 576;
    c.heads = 9;
    c.kv_heads = 3;
    c.head_dim = 64;
    c.ffn = 1536;
    c.vocab = 1000;
    carry_out(n, n.state->model_opened({}, c, now_us));
  }
  void perform(fake_node& n, agent_do::measure_devices& x) {
    for (std::size_t i = x.begin; i < x.end; ++i) {
      const double us = n.devices[i].us_per_layer;
      scheduler::serving_sizes sizes = options_.shape;
      sizes.layer_bytes = n.devices[i].layer_mib << 20;
      carry_out(n, n.state->device_measured(static_cast<std::uint32_t>(i), {us, us / 4, us, sizes},
                                            now_us));
    }
  }
  void perform(fake_node& n, agent_do::prepare_rank& x) {
    std::uint64_t used = 0;
    for (const auto& [key, mib] : n.held_mib)
      if (key.first == x.device)
        used += mib;
    prepare_result r;
    const auto weights =
        static_cast<std::uint64_t>(x.spec.part.layers) * n.devices[x.device].layer_mib;
    const auto budget = n.devices[x.device].memory_mib;
    if (used + weights + 1 > budget)
      r.error = "too little memory";
    else
      r.kv_blocks = std::min(most_kv_blocks, static_cast<std::uint32_t>(budget - used - weights));
    if (r.error.empty())
      n.held_mib[{x.device, x.spec.generation}] = weights;
    r.memory.weight_bytes = weights << 20;
    carry_out(n, n.state->rank_prepared(x.device, {x.spec.replica, x.spec.generation}, r));
  }
  void perform(fake_node& n, agent_do::commit_rank& x) {
    n.held_mib[{x.device, x.id.generation}] += x.start.kv_blocks;
    carry_out(n, n.state->rank_committed(x.device, x.id, {}));
  }
  void perform(fake_node& n, agent_do::release_rank& x) {
    if (n.stuck)
      return;
    n.held_mib.erase({x.device, x.id.generation});
    carry_out(n, n.state->rank_released(x.device, x.id));
  }
  void perform(fake_node&, agent_do::abort_rank&) {}
  void perform(fake_node& n, agent_do::start_replica& x) {
    n.replicas.insert(x.options.generation);
  }
  void perform(fake_node& n, agent_do::drain_replica& x) {
    carry_out(n, n.state->replica_drained(x.id));
  }
  void perform(fake_node& n, agent_do::stop_replica& x) { n.replicas.erase(x.id.generation); }
  void perform(fake_node& n, agent_do::leave& x) {
    n.left = x.why;
    n.left_to_return = x.again;
    n.left_process = x.process;
  }
  void perform(fake_node& n, agent_do::log& x) { log.push_back(n.name + ": " + x.line); }

  coordinator_options options_;
  std::map<std::uint64_t, connection> connections_;
  std::uint64_t next_connection_ = 1;
  std::set<std::pair<std::string, std::uint64_t>> releases_; // sent by the coordinator
  std::deque<letter> letters_;
};

} // namespace hexgen::actors::test
