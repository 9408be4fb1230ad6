#include "actors/core/coordinator_state.hpp"

#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cmath>

namespace hexgen::actors {
namespace {

template <class Message>
transport::frame control(proto::message_type type, const Message& m) {
  return {transport::traffic::control, static_cast<std::uint32_t>(type), m.SerializeAsString(), {}};
}

constexpr std::size_t most_drains = 256; // being carried out
constexpr time_ms joining_ms = 5'000;    // for nodes to find a coordinator that restarted

transport::frame refused_frame(const std::string& why) {
  proto::refused m;
  m.set_reason(why);
  return control(proto::REFUSED, m);
}

// Each coordinator numbers its generations in a range of its own, drawn with its incarnation.
std::uint64_t first_generation(std::uint64_t incarnation) {
  std::uint64_t x = incarnation;
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
  return ((x ^ (x >> 31U)) & 0xfffffU) << 12U;
}

} // namespace

coordinator_state::coordinator_state(coordinator_options options)
    : options_(std::move(options)), membership_(options_.membership),
      generations_(options_.generations, first_generation(options_.incarnation)) {}

coordinator_effects coordinator_state::peer_down(transport::peer_id peer, const std::string& why,
                                                 bool goodbye, time_ms now) {
  coordinator_effects fx;
  gateways_.erase(peer);
  for (auto& d : drains_)
    if (d.peer == peer)
      d.peer = 0; // nobody to answer, but it is carried out or taken back all the same
  take(membership_.connection_lost(peer, why, goodbye, now), now, fx);
  maybe_search(now, fx);
  return fx;
}

coordinator_effects coordinator_state::on_frame(const transport::peer_info& peer,
                                                const transport::frame& f, time_ms now) {
  coordinator_effects fx;
  if (f.type == proto::STATUS_REQUEST) {
    proto::status_request m;
    proto::status_reply reply;
    if (m.ParseFromString(f.head)) {
      reply.set_id(m.id());
      reply.set_json(status_json(now));
      fx.sends.emplace_back(peer.id, control(proto::STATUS_REPLY, reply));
    }
    return fx;
  }
  if (peer.role != transport::peer_role::node) {
    fx.log.push_back("event=refused_frame peer=" + peer.name + " type=" + std::to_string(f.type) +
                     " why=\"a client may not send it\"");
    return fx;
  }
  switch (f.type) {
  case proto::JOIN:
    join(peer, f, now, fx);
    break;
  case proto::HEARTBEAT:
    heartbeat(peer, f, now, fx);
    break;
  case proto::GATEWAY_HELLO:
    if (gateways_.size() < 1024) {
      gateways_[peer.id] = peer.name;
      fx.log.push_back("event=gateway name=" + peer.name);
      fx.sends.emplace_back(
          peer.id,
          transport::frame{transport::traffic::control, proto::ROUTING_TABLE, encode(table()), {}});
    }
    break;
  case proto::DRAIN_NODE:
    drain_node(peer.id, f, now, fx);
    break;
  default:
    if (const auto* from = membership_.find(peer.id))
      node_frame(*from, f, now, fx);
    else
      fx.sends.emplace_back(peer.id, refused_frame("not a member: join first"));
  }
  maybe_search(now, fx);
  return fx;
}

void coordinator_state::join(const transport::peer_info& peer, const transport::frame& f,
                             time_ms now, coordinator_effects& fx) {
  proto::join m;
  join_outcome outcome;
  if (!m.ParseFromString(f.head))
    outcome.refused = "join does not parse";
  else if (m.name() == coordinator_name)
    outcome.refused = std::string("the name ") + coordinator_name + " is taken";
  else
    outcome = membership_.join(peer, m, now);
  take(outcome.changes, now, fx);
  if (!outcome.refused.empty()) {
    fx.log.push_back("event=join_refused node=" + peer.name + " why=\"" + outcome.refused + "\"");
    fx.sends.emplace_back(peer.id, refused_frame(outcome.refused));
    return;
  }
  proto::welcome w;
  w.set_coordinator_incarnation(options_.incarnation);
  w.set_epoch(generations_.epoch());
  // PREPARE carries the same two messages; parsing them from there keeps one encoder.
  placement head;
  head.model = options_.model;
  head.settings = options_.settings;
  proto::prepare parts;
  parts.ParseFromString(encode(head));
  *w.mutable_model() = parts.model();
  *w.mutable_settings() = parts.settings();
  fx.sends.emplace_back(peer.id, control(proto::WELCOME, w));
  generation_effects g;
  for (const auto& h : m.held())
    generations_.held(m.name(), m.incarnation(), h, now, g);
  take(std::move(g), now, fx);
  // A drain of another coordinator's goes on here.
  if (m.draining() && !outcome.rejoined && drains_.size() < most_drains) {
    drains_.push_back({0, 0, m.name(), now});
    want_plan(urgency::repair, m.name() + " is being drained", now);
  }
  links_deadline_ = now + options_.links_ms;
  send_directory(fx);
}

void coordinator_state::heartbeat(const transport::peer_info& peer, const transport::frame& f,
                                  time_ms now, coordinator_effects& fx) {
  proto::heartbeat m;
  if (!m.ParseFromString(f.head))
    return;
  const auto* from = membership_.find(peer.id);
  if (from == nullptr) {
    // Declared gone while it was frozen: it has to come back as a new one.
    fx.sends.emplace_back(peer.id, refused_frame("ghost: this incarnation was declared gone"));
    return;
  }
  const auto name = from->name;
  const auto incarnation = from->incarnation;
  take(membership_.heartbeat(peer.id, m, now), now, fx);
  bool late = false;
  for (const auto& p : m.progress()) {
    auto i = generations_.records().find(p.generation());
    if (i == generations_.records().end()) {
      // Over here but not there: a release got lost with a connection.
      proto::release over;
      over.set_replica(p.replica());
      over.set_generation(p.generation());
      fx.sends.emplace_back(peer.id, control(proto::RELEASE, over));
      continue;
    }
    if (i->second.phase == generation_phase::releasing || !i->second.where.uses(name, incarnation))
      continue;
    if (p.oldest_step_age_ms() <= p.late_after_ms())
      continue;
    late = true;
    take(membership_.late_step(
             name, "a step has been running for " + std::to_string(p.oldest_step_age_ms()) + " ms",
             now),
         now, fx);
    break;
  }
  if (!late)
    take(membership_.progress(name, now), now, fx);
  proto::heartbeat_ack ack;
  ack.set_sequence(m.sequence());
  ack.set_epoch(generations_.epoch());
  const auto* beating = membership_.find(name);
  ack.set_draining(beating != nullptr && beating->draining);
  fx.sends.emplace_back(peer.id, control(proto::HEARTBEAT_ACK, ack));
}

void coordinator_state::node_frame(const member& from, const transport::frame& f, time_ms now,
                                   coordinator_effects& fx) {
  const auto name = from.name; // `from` may go during the call
  generation_effects g;
  switch (f.type) {
  case proto::LINK_REPORT: {
    proto::link_report m;
    if (m.ParseFromString(f.head))
      take(membership_.link_report(from.peer, m, now), now, fx);
    break;
  }
  case proto::PREPARED: {
    proto::prepared m;
    if (m.ParseFromString(f.head))
      generations_.prepared(name, m, now, g);
    break;
  }
  case proto::COMMITTED: {
    proto::committed m;
    if (m.ParseFromString(f.head))
      generations_.committed(name, m, now, g);
    break;
  }
  case proto::RELEASED: {
    proto::released m;
    if (m.ParseFromString(f.head))
      generations_.released(name, m, now, g);
    break;
  }
  case proto::GENERATION_FAILED: {
    proto::generation_failed m;
    if (m.ParseFromString(f.head))
      generations_.failed(name, m.generation(), m.reason(), now, g);
    break;
  }
  case proto::REPLICA_STATUS:
    try {
      generations_.status(name, wire::decode_replica_status(f.head));
    } catch (const wire::wire_error& e) {
      fx.log.push_back("event=bad_message node=" + name + " why=\"" + e.what() + "\"");
    }
    break;
  default:
    fx.log.push_back("event=unexpected_frame node=" + name + " type=" + std::to_string(f.type));
  }
  take(std::move(g), now, fx);
}

void coordinator_state::drain_node(transport::peer_id peer, const transport::frame& f, time_ms now,
                                   coordinator_effects& fx) {
  proto::drain_node m;
  if (!m.ParseFromString(f.head))
    return;
  if (drains_.size() < most_drains && membership_.set_draining(m.node(), true)) {
    drains_.push_back({peer, m.id(), m.node(), now});
    fx.log.push_back("event=drain_node node=" + m.node());
    want_plan(urgency::repair, m.node() + " is drained", now);
    return;
  }
  proto::drain_reply reply;
  reply.set_id(m.id());
  reply.set_message("no node of the name " + m.node().substr(0, 64) + " is in the cluster");
  fx.sends.emplace_back(peer, control(proto::DRAIN_REPLY, reply));
}

// A drained node may go when no generation is on it; a drain that leaves nothing to serve with is
// taken back. One of another coordinator's may have been refused there, unheard by the node: it is
// judged once the others have had the time to join.
void coordinator_state::answer_drains(time_ms now, coordinator_effects& fx) {
  if (wanted_ != urgency::none || search_ != 0)
    return;
  std::erase_if(drains_, [&](const drain_wait& d) {
    const bool empty = !generations_.uses(d.node);
    const bool inherited = d.peer == 0;
    if (inherited && empty && !plan_.feasible && now < d.since + joining_ms)
      return false;
    const bool hopeless = !plan_.feasible && (!empty || inherited);
    if (!empty && !hopeless)
      return false;
    proto::drain_reply reply;
    reply.set_id(d.id);
    reply.set_done(!hopeless);
    reply.set_message(!hopeless ? d.node + " is drained and may be stopped"
                                : "without " + d.node + " nothing can serve: " + missing_);
    if (hopeless) {
      membership_.set_draining(d.node, false);
      want_plan(urgency::improve, d.node + " is not drained after all", now);
    }
    fx.log.push_back("event=drain_answered node=" + d.node + " done=" + (hopeless ? "0" : "1"));
    if (d.peer != 0)
      fx.sends.emplace_back(d.peer, control(proto::DRAIN_REPLY, reply));
    return true;
  });
}

void coordinator_state::take(const membership_changes& changes, time_ms now,
                             coordinator_effects& fx) {
  using kind = membership_change::kind;
  for (const auto& c : changes) {
    fx.log.push_back(std::string("event=node_") + to_string(c.what) + " node=" + c.node +
                     (c.why.empty() ? "" : " why=\"" + c.why + "\""));
    switch (c.what) {
    case kind::suspect: {
      generation_effects g;
      generations_.node_lost(c.node, c.incarnation, c.why, now, g);
      const bool served = !g.replan.empty();
      failures_in_a_row_ = 0;
      take(std::move(g), now, fx);
      if (served || wanted_ == urgency::repair)
        want_plan(urgency::repair, c.node + " is lost", now);
      break;
    }
    case kind::gone:
      stragglers_.forget(c.node);
      send_directory(fx);
      want_plan(urgency::improve, c.node + " is gone", now);
      break;
    case kind::recovered:
      generations_.node_back(c.node, c.incarnation);
      [[fallthrough]];
    case kind::ready:
      want_plan(urgency::improve, c.node + " is ready", now + options_.settle_ms);
      break;
    case kind::links:
      // A pair that was not known before may allow a better plan.
      if (generations_.serving_tokens_per_s() == 0)
        want_plan(urgency::improve, "links of " + c.node, now);
      else if (!c.why.empty())
        want_plan(urgency::improve, c.why, now + options_.settle_ms);
      break;
    case kind::rates:
      want_plan(urgency::improve, c.node + " measures itself otherwise than before",
                now + options_.settle_ms);
      break;
    case kind::joined:
      break;
    }
  }
}

void coordinator_state::take(generation_effects g, time_ms now, coordinator_effects& fx) {
  for (auto& [node, f] : g.sends)
    if (const auto* m = membership_.find(node); m != nullptr && m->peer != 0)
      fx.sends.emplace_back(m->peer, std::move(f));
  fx.log.insert(fx.log.end(), g.log.begin(), g.log.end());
  ended_.insert(ended_.end(), g.ended.begin(), g.ended.end());
  if (!g.replan.empty()) {
    if (now > last_failure_ms_ + 30'000)
      failures_in_a_row_ = 0;
    last_failure_ms_ = now;
    // A node that died is noticed by its neighbours and by us at almost the same time: a moment's
    // wait keeps it out of the new plan.
    const auto wait = failures_in_a_row_ == 0
                          ? 50
                          : std::min<time_ms>(8000, options_.retry_ms << std::min<std::uint64_t>(
                                                        failures_in_a_row_ - 1, 4));
    ++failures_in_a_row_;
    want_plan(urgency::repair, g.replan, now + wait);
  }
  if (g.routes_changed)
    publish(fx);
}

void coordinator_state::send_directory(coordinator_effects& fx) {
  proto::directory d;
  for (const auto& [name, m] : membership_.members()) {
    auto* e = d.add_nodes();
    e->set_name(name);
    e->set_incarnation(m.incarnation);
    e->set_address(m.address);
    e->set_zone(m.zone);
  }
  for (const auto& [name, m] : membership_.members())
    if (m.peer != 0)
      fx.sends.emplace_back(m.peer, control(proto::DIRECTORY, d));
}

wire::routing_table coordinator_state::table() const {
  wire::routing_table t;
  t.epoch = table_number_;
  t.model = options_.model;
  t.settings = options_.settings;
  for (const auto& [id, g] : generations_.records()) {
    if (g.phase != generation_phase::serving && g.phase != generation_phase::draining)
      continue;
    const auto& home = g.where.home();
    const auto* m = membership_.find(home.node);
    t.routes.push_back({g.where.replica, id, home.node, home.incarnation,
                        m == nullptr ? std::string() : m->address, g.tokens_per_s,
                        g.phase == generation_phase::draining, g.kv_blocks});
  }
  if (t.routes.empty()) {
    t.missing = missing_;
    t.switching =
        served_ && (generations_.exchanging() || search_ != 0 || wanted_ == urgency::repair);
  }
  return t;
}

void coordinator_state::publish(coordinator_effects& fx) {
  served_ = served_ || generations_.serving() > 0;
  ++table_number_; // a table that is older than the last is ignored, so each has its number
  fx.table = table();
  const auto head = encode(*fx.table);
  for (const auto& [peer, name] : gateways_)
    fx.sends.emplace_back(
        peer, transport::frame{transport::traffic::control, proto::ROUTING_TABLE, head, {}});
}

void coordinator_state::want_plan(urgency u, const std::string& why, time_ms at) {
  if (u > wanted_ || wanted_ == urgency::none) {
    wanted_why_ = why;
    // A repair does not wait for what an improvement waits for.
    plan_at_ = wanted_ == urgency::none || u > wanted_ ? at : plan_at_;
    wanted_ = u;
  } else if (u == wanted_) {
    // Joins that follow one another make one plan; the most urgent repair sets the time.
    plan_at_ = u == urgency::improve ? std::max(plan_at_, at) : std::min(plan_at_, at);
  }
}

void coordinator_state::maybe_search(time_ms now, coordinator_effects& fx) {
  answer_drains(now, fx);
  if (wanted_ == urgency::none || search_ != 0 || now < plan_at_ || generations_.exchanging() ||
      generations_.adopting())
    return;
  if (wanted_ == urgency::improve) {
    if (membership_.measuring(now))
      return;
    if (!membership_.links_known() && now < links_deadline_)
      return;
  }
  // Damping spares those who serve a move; where nobody does, whoever is there is welcome.
  if (generations_.serving() == 0)
    membership_.end_damping();
  view_ = membership_.plannable(now);
  for (auto& d : view_.devices) {
    const double slower = stragglers_.factor({d.node, d.index});
    d.decode_us_per_layer *= slower;
    d.prefill_us_per_token_layer *= slower;
    d.head_us *= slower;
  }
  searching_for_ = wanted_;
  last_replan_ = wanted_why_;
  wanted_ = urgency::none;
  if (view_.next_ms != 0)
    want_plan(urgency::improve, "a node that left often has stayed", view_.next_ms);
  search_ = next_search_++;
  ++replans_;
  fx.search = search_request{search_,       view_.devices,   view_.links, options_.shape,
                             options_.goal, options_.layout, {}};
  if (searching_for_ == urgency::repair)
    fx.search->stand_ins = stand_ins();
  fx.log.push_back("event=search why=\"" + last_replan_ +
                   "\" devices=" + std::to_string(view_.devices.size()));
}

scheduler::serving_plan plan_for(const search_request& r) {
  for (const auto& layout : r.stand_ins)
    if (auto plan = scheduler::plan_manual(r.devices, r.links, r.model, r.goal, layout);
        plan.feasible)
      return plan;
  return r.layout ? scheduler::plan_manual(r.devices, r.links, r.model, r.goal, *r.layout)
                  : scheduler::plan_serving(r.devices, r.links, r.model, r.goal);
}

// Whoever is left of what was lost still has its shard and its KV, in its place.
std::vector<scheduler::manual_layout> coordinator_state::stand_ins() const {
  constexpr std::size_t most = 8;
  if (ended_.empty())
    return {};
  using device_key = std::pair<std::string, std::uint32_t>;
  std::map<device_key, std::size_t> there; // alive, and in no generation so far
  for (std::size_t i = 0; i < view_.devices.size(); ++i)
    if (!view_.devices[i].draining)
      there.emplace(device_key{view_.devices[i].node, view_.devices[i].index}, i);
  scheduler::manual_layout kept;
  std::vector<std::string*> lost;
  const auto add = [&](const placement& p) {
    auto& degrees = kept.stages.emplace_back();
    auto& layers = kept.layers.emplace_back();
    auto& names = kept.placement.emplace_back();
    for (const auto& s : p.stages) {
      degrees.push_back(static_cast<int>(s.ranks.size()));
      layers.push_back(s.layers);
      for (const auto& r : s.ranks) {
        const auto i = there.find({r.node, r.device});
        const bool here = i != there.end() && view_.incarnations[i->second] == r.incarnation;
        names.push_back(here ? r.node + "/" + std::to_string(r.device) : std::string());
        if (here)
          there.erase(i);
      }
    }
  };
  for (const auto& [id, g] : generations_.records())
    if (g.phase == generation_phase::serving)
      add(g.where);
  for (const auto& p : ended_)
    add(p);
  std::vector<std::pair<double, std::string>> idle; // the fastest first
  for (const auto& [key, i] : there)
    idle.emplace_back(view_.devices[i].decode_us_per_layer,
                      key.first + "/" + std::to_string(key.second));
  std::sort(idle.begin(), idle.end());
  for (auto& names : kept.placement)
    for (auto& name : names)
      if (name.empty())
        lost.push_back(&name);
  std::vector<scheduler::manual_layout> out;
  for (std::size_t from = 0; from + lost.size() <= idle.size() && out.size() < most; ++from) {
    for (std::size_t i = 0; i < lost.size(); ++i)
      *lost[i] = idle[from + i].second;
    out.push_back(kept);
  }
  return out;
}

placement coordinator_state::place(const scheduler::serving_replica& r,
                                   std::uint64_t replica) const {
  placement p;
  p.replica = replica;
  p.model = options_.model;
  p.settings = options_.settings;
  for (const auto& s : r.stages) {
    placed_stage stage{s.first_layer, s.layers, {}};
    for (auto d : s.devices) {
      const auto& device = view_.devices.at(d);
      stage.ranks.push_back({device.node, view_.incarnations.at(d), device.index,
                             1e3 / std::max(1e-3, device.decode_us_per_layer)});
    }
    p.stages.push_back(std::move(stage));
  }
  return p;
}

coordinator_effects coordinator_state::plan_done(std::uint64_t search,
                                                 const scheduler::serving_plan& plan, time_ms now) {
  coordinator_effects fx;
  if (search != search_)
    return fx;
  search_ = 0;
  // A member that went while the search ran makes the plan stale; the loss has asked for a new one.
  const bool stale = std::any_of(view_.devices.begin(), view_.devices.end(), [&](const auto& d) {
    const auto i = static_cast<std::size_t>(&d - view_.devices.data());
    return !membership_.alive(d.node, view_.incarnations[i]);
  });
  if (stale)
    want_plan(urgency::repair, "a node went while the plan was made", now);
  else {
    ended_.clear();
    apply(plan, now, fx);
  }
  maybe_search(now, fx);
  return fx;
}

void coordinator_state::apply(const scheduler::serving_plan& plan, time_ms now,
                              coordinator_effects& fx) {
  plan_ = plan;
  searched_ = {0, view_.devices, view_.links, options_.shape, options_.goal, options_.layout, {}};
  if (!plan.feasible || plan.replicas.empty()) {
    plan_.feasible = false;
    missing_ = plan.missing.empty() ? "no plan is possible with these devices" : plan.missing;
    fx.log.push_back("event=no_plan missing=\"" + missing_ + "\"");
    publish(fx);
    return;
  }
  missing_ = "the model is being loaded";
  std::set<std::uint64_t> leaving, replicas_kept;
  for (const auto& [id, g] : generations_.records())
    if (g.phase == generation_phase::serving)
      leaving.insert(id);
  std::vector<generation_set::addition> add;
  double rate = 0;
  std::uint64_t highest = 0;
  for (const auto& [id, g] : generations_.records())
    highest = std::max(highest, g.where.replica);
  for (const auto& r : plan.replicas) {
    generation_set::addition a{place(r, 0), r.bottleneck_us > 0 ? 1e6 / r.bottleneck_us : 0};
    rate += a.tokens_per_s;
    auto same = std::find_if(leaving.begin(), leaving.end(), [&](std::uint64_t id) {
      return generations_.records().at(id).where.same_place(a.where);
    });
    if (same != leaving.end()) {
      replicas_kept.insert(generations_.records().at(*same).where.replica);
      generations_.predicted(*same, a.tokens_per_s);
      leaving.erase(same);
    } else {
      add.push_back(std::move(a));
    }
  }
  if (add.empty() && leaving.empty()) {
    publish(fx);
    return;
  }
  // What was adopted has no prediction yet.
  for (const auto& [id, g] : generations_.records())
    if (g.phase == generation_phase::serving && g.tokens_per_s == 0)
      generations_.predicted(id, estimate(g.where));
  const double old_rate = generations_.serving_tokens_per_s();
  // Of a layout by hand without names, what stands in for a lost device is as good.
  const bool by_hand = options_.layout &&
                       (!options_.settings.stage_recovery || !options_.layout->placement.empty() ||
                        generations_.serving() != options_.layout->stages.size());
  // The rates of two that share a device do not add up.
  if (searching_for_ == urgency::improve && old_rate > 0 && drains_.empty() && !by_hand &&
      !generations_.crowded() &&
      (rate - old_rate) * (options_.pays_window_s - options_.reload_s) <=
          old_rate * options_.reload_s) {
    fx.log.push_back("event=plan_kept why=\"a switch does not pay\"");
    plan_.why.insert(plan_.why.begin(),
                     "the running layout stays: a switch to this one does not pay");
    return;
  }
  // A replaced replica keeps its number, so that its history can be followed.
  std::vector<std::uint64_t> numbers;
  for (auto id : leaving)
    numbers.push_back(generations_.records().at(id).where.replica);
  for (std::size_t i = 0; i < add.size(); ++i)
    add[i].where.replica = i < numbers.size() ? numbers[i] : ++highest;
  for (const auto& line : plan.why)
    fx.log.push_back("event=plan why=\"" + line + "\"");
  const auto need = static_cast<std::uint32_t>(
      (options_.goal.kv_tokens + compute::block_tokens - 1) / compute::block_tokens);
  generation_effects g;
  generations_.exchange(std::move(add), leaving, need, now, g);
  g.routes_changed = true; // what is missing has changed too
  take(std::move(g), now, fx);
}

// The slowest stage alone, as if its ranks shared the work in proportion to their speeds.
double coordinator_state::estimate(const placement& p) const {
  double slowest_us = 0;
  for (const auto& s : p.stages) {
    double layers_per_us = 0;
    for (const auto& r : s.ranks)
      if (const auto* m = membership_.find(r.node); m != nullptr && r.device < m->devices.size())
        layers_per_us += 1 / std::max(1e-3, m->devices[r.device].decode_us_per_layer *
                                                stragglers_.factor({r.node, r.device}));
    if (layers_per_us > 0)
      slowest_us = std::max(slowest_us, s.layers / layers_per_us);
  }
  return slowest_us > 0 ? 1e6 / slowest_us : 0;
}

// A stage's time is its device's when it has one alone.
void coordinator_state::watch_stragglers(time_ms now, coordinator_effects& fx) {
  constexpr time_ms every_ms = 1'000;
  if (now < stragglers_at_)
    return;
  stragglers_at_ = now + every_ms;
  std::map<straggler_watch::device, double> ratios;
  decltype(watched_) seen;
  for (const auto& [id, g] : generations_.records()) {
    if (g.phase != generation_phase::serving || !g.status ||
        g.status->stage_us.size() != g.where.stages.size())
      continue;
    const auto& now_at =
        seen[id] = {g.status->steps, g.status->step_tokens, g.status->generated_tokens};
    const auto before = watched_.find(id);
    if (before == watched_.end() || before->second.steps >= now_at.steps)
      continue; // it did nothing lately
    // Steps of many tokens take longer, and a layer more so than the head.
    const auto steps = static_cast<double>(now_at.steps - before->second.steps);
    const double tokens =
        std::max(1.0, static_cast<double>(now_at.step_tokens - before->second.step_tokens) / steps);
    const double rows = std::max(
        1.0,
        static_cast<double>(now_at.generated_tokens - before->second.generated_tokens) / steps);
    for (std::size_t s = 0; s < g.where.stages.size(); ++s) {
      const auto& stage = g.where.stages[s];
      const auto& r = stage.ranks.front();
      const auto* m = membership_.find(r.node);
      if (stage.ranks.size() != 1 || m == nullptr || r.device >= m->devices.size())
        continue;
      const auto& d = m->devices[r.device];
      const double further = d.prefill_us_per_token_layer / std::max(d.decode_us_per_layer, 1e-9);
      const double predicted =
          stage.layers * d.decode_us_per_layer * (1 + (tokens - 1) * further) +
          (s + 1 == g.where.stages.size() ? d.decode_us_head * (1 + (rows - 1) * further) : 0);
      if (predicted > 0 && g.status->stage_us[s] > 0)
        ratios[{r.node, r.device}] = g.status->stage_us[s] / predicted;
    }
  }
  watched_ = std::move(seen);
  for (const auto& v : stragglers_.observe(ratios, now)) {
    const auto name = v.which.first + "/" + std::to_string(v.which.second);
    fx.log.push_back("event=straggler device=" + name + " factor=" + std::to_string(v.factor));
    for (const auto& [id, g] : generations_.records())
      if (g.phase == generation_phase::serving)
        generations_.predicted(id, estimate(g.where));
    want_plan(urgency::improve,
              name + (v.factor > 1 ? " runs slower than it measured" : " is tried at full speed"),
              now);
  }
}

coordinator_effects coordinator_state::tick(time_ms now) {
  coordinator_effects fx;
  take(membership_.tick(now), now, fx);
  generation_effects g;
  generations_.tick(now, g);
  take(std::move(g), now, fx);
  watch_stragglers(now, fx);
  maybe_search(now, fx);
  return fx;
}

} // namespace hexgen::actors
