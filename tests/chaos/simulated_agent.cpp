#include "tests/chaos/simulated_agent.hpp"

#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <set>

namespace hexgen::tests {
namespace {

constexpr time_us tick_us = 100'000;
constexpr time_us keep_us = 10'000'000; // a rank that was lost, for the next generation

actors::agent_options options_of(const std::string& name, std::uint64_t incarnation,
                                 const simulated_device& d) {
  actors::agent_options o;
  o.name = name;
  o.incarnation = incarnation;
  o.coordinator = actors::coordinator_name;
  o.address = d.port ? name : "";
  o.zone = "z";
  actors::device_options device;
  device.memory_bytes = d.memory_bytes;
  if (d.ahead)
    device.kind = "cuda";
  o.devices = {device};
  return o;
}

compute::model_config model() {
  compute::model_config c;
  c.layers = layered_model_layers;
  c.hidden = 64;
  c.heads = c.kv_heads = 4;
  c.head_dim = 16;
  c.ffn = 256;
  c.vocab = layered_model_vocab;
  c.context = 256;
  return c;
}

} // namespace

simulated_agent::simulated_agent(virtual_network& net, std::string name, std::uint64_t incarnation,
                                 simulated_device device, planted_bug bug, reports tell)
    : net_(net), name_(std::move(name)), device_(device), bug_(bug), tell_(std::move(tell)),
      agent_(options_of(name_, incarnation, device)) {
  id_ = net_.start(this, name_, incarnation, device.port ? name_ : "");
  carry_out(agent_.start(net_.now()));
  timer(net_.chance.in(1, tick_us), [this] { tick(); });
}

simulated_agent::~simulated_agent() {
  kill();
}

void simulated_agent::kill() {
  net_.kill(id_);
}

void simulated_agent::timer(time_us delay, std::function<void()> task) {
  net_.after(id_, delay, std::move(task));
}

void simulated_agent::tick() {
  std::vector<actors::rank_progress> progress;
  for (const auto& [who, r] : ranks_) {
    actors::rank_progress p;
    p.replica = who.first;
    p.generation = who.second;
    p.last_step = r.last_step;
    p.running_ms = running_ && step_of_ == who ? (net_.now() - step_from_) / 1000 : 0;
    p.running_tokens = p.running_ms > 0 ? step_tokens_ : 0;
    progress.push_back(p);
  }
  carry_out(agent_.tick(progress, net_.now()));
  std::vector<key> all;
  for (const auto& [who, r] : replicas_)
    all.push_back(who);
  for (const auto& who : all)
    if (const auto r = replicas_.find(who); r != replicas_.end())
      carry_out(who, r->second->tick(net_.now()));
  timer(tick_us, [this] { tick(); });
}

void simulated_agent::ask_drain() {
  drain_asked_ = true;
  proto::drain_node m;
  m.set_id(1);
  m.set_node(name_);
  for (const auto& [id, peer] : peers_)
    if (peer.name == actors::coordinator_name)
      net_.send(id_, id,
                transport::frame{
                    transport::traffic::control, proto::DRAIN_NODE, m.SerializeAsString(), {}});
}

void simulated_agent::hang(time_us for_us, bool deaf) {
  hung_until_ = net_.now() + for_us;
  deaf_ = deaf;
}

void simulated_agent::on_up(const transport::peer_info& peer) {
  peers_[peer.id] = peer;
  carry_out(agent_.peer_up(peer, net_.now()));
  if (drain_asked_ && peer.name == actors::coordinator_name)
    ask_drain(); // the operator wants an answer
}

void simulated_agent::on_down(const transport::peer_info& peer, const std::string& why) {
  peers_.erase(peer.id);
  carry_out(agent_.peer_down(peer, why, net_.now()));
  std::vector<key> all;
  for (const auto& [who, r] : replicas_)
    all.push_back(who);
  for (const auto& who : all)
    if (const auto r = replicas_.find(who); r != replicas_.end())
      carry_out(who, r->second->router_lost(peer.id, net_.now()));
}

void simulated_agent::on_dial_failed(const std::string& address, const std::string& why) {
  carry_out(agent_.dial_failed(address, why, net_.now()));
}

void simulated_agent::on_packet(const transport::peer_info& peer, const packet& p) {
  if (const auto* f = std::get_if<transport::frame>(&p)) {
    if (f->type == proto::PROBE) {
      proto::probe in;
      proto::probe_reply out;
      in.ParseFromString(f->head);
      out.set_id(in.id());
      net_.send(id_, peer.id,
                transport::frame{
                    transport::traffic::control, proto::PROBE_REPLY, out.SerializeAsString(), {}});
      return;
    }
    if (f->type == proto::DRAIN_REPLY) {
      proto::drain_reply m;
      drain_asked_ = false;
      if (m.ParseFromString(f->head) && m.done())
        tell_.leave(true); // it may be stopped now
      return;
    }
    carry_out(agent_.on_frame(peer, *f, net_.now()));
  } else if (const auto* step = std::get_if<std::shared_ptr<const step_packet>>(&p)) {
    take_step(*step);
  } else if (const auto* result = std::get_if<actors::wire::step_result>(&p)) {
    const key who{result->replica, result->generation};
    if (replicas_.contains(who))
      take_result(*result);
    else
      ++refused_frames_;
  } else if (const auto* submit = std::get_if<actors::wire::submit>(&p)) {
    const key who{submit->replica, submit->generation};
    if (const auto r = replicas_.find(who); r != replicas_.end())
      carry_out(who, r->second->submit(peer.id, *submit, net_.now()));
    else
      net_.send(id_, peer.id,
                actors::wire::request_failed{submit->request, submit->attempt, true, 503,
                                             "the generation does not serve here"});
  } else if (const auto* cancel = std::get_if<actors::wire::cancel>(&p)) {
    const key who{cancel->replica, cancel->generation};
    if (const auto r = replicas_.find(who); r != replicas_.end())
      carry_out(who, r->second->cancel(peer.id, *cancel, net_.now()));
  }
}

bool simulated_agent::send_to(const actors::node_process& to, packet p) {
  for (auto it = peers_.rbegin(); it != peers_.rend(); ++it) // the newest connection
    if (it->second.name == to.name && it->second.incarnation == to.incarnation)
      return net_.send(id_, it->first, std::move(p));
  return false;
}

void simulated_agent::carry_out(actors::agent_effects effects) {
  namespace act = actors::agent_do;
  for (auto& e : effects) {
    if (auto* dial = std::get_if<act::dial>(&e)) {
      net_.dial(id_, dial->address);
    } else if (auto* through = std::get_if<act::dial_through>(&e)) {
      net_.dial_through(id_, through->relay, through->name, through->incarnation);
    } else if (auto* end = std::get_if<act::hang_up>(&e)) {
      net_.hang_up(end->peer);
    } else if (auto* send = std::get_if<act::send>(&e)) {
      net_.send(id_, send->peer, std::move(send->message));
    } else if (auto* probe = std::get_if<act::probe>(&e)) {
      proto::probe m;
      m.set_id(probe->id);
      net_.send(
          id_, probe->peer,
          transport::frame{transport::traffic::control, proto::PROBE, m.SerializeAsString(), {}});
    } else if (std::holds_alternative<act::open_model>(e)) {
      timer(net_.chance.in(1'000, 20'000),
            [this] { carry_out(agent_.model_opened("", model(), net_.now())); });
    } else if (std::holds_alternative<act::measure_devices>(e)) {
      timer(net_.chance.in(1'000, 20'000), [this] {
        const double us = static_cast<double>(device_.step_us);
        carry_out(agent_.device_measured(0, {us, us / 8, us}, net_.now()));
      });
    } else if (auto* prepare_it = std::get_if<act::prepare_rank>(&e)) {
      prepare(*prepare_it);
    } else if (auto* commit_it = std::get_if<act::commit_rank>(&e)) {
      timer(net_.chance.in(100, 5'000), [this, c = *commit_it] { commit(c); });
    } else if (auto* release = std::get_if<act::release_rank>(&e)) {
      timer(net_.chance.in(100, 20'000), [this, r = *release] { release_rank(r); });
    } else if (auto* abort = std::get_if<act::abort_rank>(&e)) {
      abort_rank({abort->id.replica, abort->id.generation});
    } else if (auto* start = std::get_if<act::start_replica>(&e)) {
      auto o = start->options;
      o.prefix_key = {net_.chance.draw(), net_.chance.draw()};
      if (start->inherits != 0 && start->inherits == known_.first) {
        o.inherited = known_.second;
      } else if (!start->known.empty()) {
        auto kept = std::make_shared<scheduler::kept_blocks>();
        kept->key = o.prefix_key;
        for (const auto& k : start->known)
          scheduler::add_kept(*kept, k.tokens, k.blocks);
        o.inherited = std::move(kept);
      }
      replicas_[{o.replica, o.generation}] = std::make_unique<actors::replica_state>(o);
    } else if (auto* drain = std::get_if<act::drain_replica>(&e)) {
      drain_limit({drain->id.replica, drain->id.generation}, drain->limit_ms);
    } else if (auto* stop = std::get_if<act::stop_replica>(&e)) {
      const key who{stop->id.replica, stop->id.generation};
      if (const auto r = replicas_.find(who); r != replicas_.end()) {
        carry_out(who, r->second->abort(stop->why, net_.now()));
        if (r->second->options().stage_recovery)
          known_ = {who.second, std::make_shared<scheduler::kept_blocks>(r->second->kept())};
        replicas_.erase(who);
      }
    } else if (auto* leave = std::get_if<act::leave>(&e)) {
      tell_.log(name_ + " leaves: " + leave->why);
      tell_.leave(leave->again);
    } else if (auto* line = std::get_if<act::log>(&e)) {
      tell_.log(name_ + " " + line->line);
    }
  }
}

/// A poisoned generation runs no further step here.
void simulated_agent::abort_rank(const key& who) {
  if (const auto r = ranks_.find(who); r != ranks_.end())
    r->second.aborted = true;
  std::erase_if(queue_, [&](const auto& s) {
    return key{s->message.replica, s->message.generation} == who;
  });
}

void simulated_agent::release_rank(const actors::agent_do::release_rank& r) {
  const key who{r.id.replica, r.id.generation};
  abort_rank(who);
  if (step_of_ == who && running_ && deaf_ && hung_until_ > net_.now()) {
    timer(20'000, [this, r] { release_rank(r); }); // its thread is waited for
    return;
  }
  const auto ended = ranks_.find(who);
  if (r.keep && ended != ranks_.end() && ended->second.stage != nullptr) {
    kept_ = std::move(ended->second);
    keep_until_ = net_.now() + keep_us;
  }
  ranks_.erase(who);
  if (step_of_ == who)
    hung_until_ = 0; // the abort flag frees the device thread
  carry_out(agent_.rank_released(r.device, r.id));
}

void simulated_agent::drain_limit(const key& who, std::uint32_t limit_ms) {
  const auto r = replicas_.find(who);
  if (r == replicas_.end())
    return;
  carry_out(who, r->second->drain(net_.now()));
  timer(limit_ms * 1000ULL, [this, who] {
    const auto late = replicas_.find(who);
    if (late == replicas_.end() || late->second->dead() || late->second->idle())
      return;
    carry_out(who, late->second->abort("the drain limit has passed", net_.now()));
    carry_out(agent_.replica_drained({who.first, who.second}));
  });
}

void simulated_agent::prepare(const actors::agent_do::prepare_rank& what) {
  ranks_[{what.spec.replica, what.spec.generation}].spec = what.spec;
  timer(net_.chance.in(device_.load_us / 4, device_.load_us), [this, what] {
    const key who{what.spec.replica, what.spec.generation};
    const auto found = ranks_.find(who);
    if (found == ranks_.end())
      return; // released while it was loading
    auto& fresh = found->second;
    actors::prepare_result result;
    if (auto kept = std::exchange(kept_, std::nullopt);
        kept && net_.now() < keep_until_ && kept->spec.stage == what.spec.stage &&
        kept->spec.stages == what.spec.stages && kept->spec.part == what.spec.part) {
      result.kept = kept->spec.generation;
      result.kv_blocks = kept->kv_blocks;
      if (kept->spec.stage + 1 == kept->spec.stages) {
        result.known = kept->known.all();
        result.known_step = kept->known.last_step();
      }
      result.late = kept->known.written_in_last(kept->spec.stages + 1);
      fresh.kept = std::move(kept->stage);
      fresh.kv_blocks = kept->kv_blocks;
      carry_out(agent_.rank_prepared(what.device, {who.first, who.second}, result));
      return;
    }
    std::uint32_t taken = 0;
    if (bug_ != planted_bug::forget_memory)
      for (const auto& [other, r] : ranks_)
        taken += r.kv_blocks;
    result.kv_blocks =
        std::min<std::uint32_t>(24, device_.kv_blocks - std::min(device_.kv_blocks, taken));
    carry_out(agent_.rank_prepared(what.device, {who.first, who.second}, result));
  });
}

void simulated_agent::commit(const actors::agent_do::commit_rank& c) {
  const auto found = ranks_.find({c.id.replica, c.id.generation});
  if (found != ranks_.end()) {
    auto& r = found->second;
    r.start = c.start;
    if (r.kept && !c.start.hollow) {
      r.stage = std::move(r.kept);
      r.stage->inherited_by(c.id.generation);
    } else {
      r.stage = std::make_unique<layered_stage>(r.spec.part.first_layer, r.spec.part.layers,
                                                c.start.kv_blocks, c.id.generation);
      r.start.hollow = r.start.hollow && bug_ != planted_bug::skip_refill;
    }
    r.kept.reset();
    r.kv_blocks = c.start.kv_blocks;
    std::uint32_t held = 0;
    for (const auto& [who, rank] : ranks_)
      held += rank.kv_blocks;
    if (held > device_.kv_blocks)
      tell_.violation(name_ + " holds " + std::to_string(held) + " KV blocks and has memory for " +
                      std::to_string(device_.kv_blocks));
  }
  carry_out(
      agent_.rank_committed(c.device, c.id, found == ranks_.end() ? "it was never prepared" : ""));
}

void simulated_agent::carry_out(const key& who, actors::replica_effects effects) {
  for (auto& e : effects) {
    if (auto* step = std::get_if<actors::send_step>(&e)) {
      check_writers(who, step->message);
      auto p = std::make_shared<step_packet>();
      for (const auto id : step->message.ids)
        p->activations.push_back(fake_input(id));
      p->message = std::move(step->message);
      p->message.ids.clear();
      take_step(std::move(p));
    } else if (auto* tokens = std::get_if<actors::send_chunks>(&e)) {
      for (auto& chunk : tokens->chunks)
        net_.send(id_, tokens->to, std::move(chunk));
    } else if (auto* failed = std::get_if<actors::send_failed>(&e)) {
      net_.send(id_, failed->to, std::move(failed->message));
    } else if (std::holds_alternative<actors::replica_drained>(e)) {
      carry_out(agent_.replica_drained({who.first, who.second}));
    } else if (auto* broken = std::get_if<actors::replica_broken>(&e)) {
      tell_.log(name_ + " replica broken: " + broken->reason);
      // Later, so that the replica is not taken away while it speaks.
      timer(0, [this, who, why = broken->reason] {
        carry_out(agent_.rank_failed({who.first, who.second}, why));
      });
    }
  }
}

/// Among the steps in flight a block has one writer.
void simulated_agent::check_writers(const key& who, const actors::wire::step_message& m) {
  auto& writers = writers_[who];
  for (const auto& e : m.work.entries)
    for (int p = e.position; p < e.position + e.tokens; ++p) {
      const auto block = e.blocks[static_cast<std::size_t>(p / compute::block_tokens)];
      const auto [it, is_new] = writers.try_emplace(block, e.sequence, m.step);
      if (!is_new && it->second.first != e.sequence)
        tell_.violation("block " + std::to_string(block) + " is written by two sequences at once");
      it->second = {e.sequence, m.step};
    }
}

void simulated_agent::take_step(std::shared_ptr<const step_packet> p) {
  const key who{p->message.replica, p->message.generation};
  const auto r = ranks_.find(who);
  const bool known = r != ranks_.end() && r->second.stage != nullptr && !r->second.aborted;
  if (!known && bug_ != planted_bug::skip_generation_check) {
    ++refused_frames_;
    return;
  }
  queue_.push_back(std::move(p));
  run_next();
}

void simulated_agent::run_next() {
  if (running_ || queue_.empty())
    return;
  const auto p = queue_.front();
  queue_.pop_front();
  running_ = true;
  step_from_ = net_.now();
  step_of_ = {p->message.replica, p->message.generation};
  const auto tokens = step_tokens_ = static_cast<time_us>(p->message.work.tokens());
  timer(net_.chance.in(device_.step_us / 2, device_.step_us) + tokens * device_.step_us / 32,
        [this, p] { finish_step(p); });
}

void simulated_agent::finish_step(const std::shared_ptr<const step_packet>& p) {
  if (hung_until_ > net_.now()) {
    timer(std::min<time_us>(hung_until_ - net_.now(), 50'000), [this, p] { finish_step(p); });
    return;
  }
  running_ = false;
  const auto& m = p->message;
  auto r = ranks_.find({m.replica, m.generation});
  if (r == ranks_.end() && bug_ == planted_bug::skip_generation_check)
    r = std::find_if(ranks_.begin(), ranks_.end(), [&](const auto& other) {
      return other.first.first == m.replica && other.second.stage != nullptr &&
             other.second.spec.stage == m.stage;
    });
  if (r != ranks_.end() && r->second.stage != nullptr && !r->second.aborted) {
    auto& rank = r->second;
    auto out = std::make_shared<step_packet>(*p);
    // Steps of one generation run strictly in order on every stage.
    if (bug_ == planted_bug::none && m.step != rank.last_step + 1)
      tell_.violation(name_ + ": step " + std::to_string(m.step) + " after " +
                      std::to_string(rank.last_step));
    rank.last_step = m.step;
    const bool blocks_there =
        std::all_of(m.work.entries.begin(), m.work.entries.end(), [&](const auto& e) {
          return std::all_of(e.blocks.begin(), e.blocks.end(),
                             [&](auto b) { return b < rank.kv_blocks; });
        });
    if (!m.refill)
      fill_unknown(rank, *out);
    rank.known.begins(m);
    const bool computes = !m.refill || rank.start.hollow;
    refilled_ += m.refill && computes ? 1 : 0;
    const bool good =
        blocks_there && (!computes || rank.stage->run(m.work, out->activations, m.generation));
    if (m.refill && (!computes || !rank.start.next_hollow))
      out->activations =
          rank.start.next_hollow ? rank.stage->passed(m.work) : std::vector<std::uint64_t>();
    if (!good) {
      tell_.violation(name_ + ": step " + std::to_string(m.step) + " of generation " +
                      std::to_string(m.generation) + " found another sequence's KV");
    } else if (rank.spec.stage + 1 == rank.spec.stages) {
      sample(rank, *out);
    } else {
      ++out->message.stage;
      if (rank.spec.next_node.name == name_)
        take_step(std::move(out));
      else if (!send_to(rank.spec.next_node, packet(std::shared_ptr<const step_packet>(out))))
        carry_out(agent_.rank_failed({m.replica, m.generation}, "the next stage is not there"));
    }
  }
  run_next();
}

/// What the replica did not know when it formed the step.
void simulated_agent::fill_unknown(const rank& r, step_packet& p) {
  std::size_t at = 0;
  for (const auto& e : p.message.work.entries) {
    at += static_cast<std::size_t>(e.tokens);
    if (r.spec.stage == 0 && p.activations[at - 1] == fake_input(compute::unknown_token))
      p.activations[at - 1] = fake_input(r.last.at(e.sequence).id);
  }
}

void simulated_agent::sample(rank& r, const step_packet& p) {
  const auto& m = p.message;
  for (const auto& o : m.opens) {
    r.open[o.sequence] = o;
    r.generated[o.sequence] = static_cast<int>(o.emitted.size());
    r.known.open(o);
  }
  r.known.ran(m);
  actors::wire::step_result result;
  result.replica = m.replica;
  result.generation = m.generation;
  result.step = m.step;
  std::size_t at = 0;
  for (const auto& e : m.work.entries) {
    at += static_cast<std::size_t>(e.tokens);
    if (e.logits == 0)
      continue;
    const auto open = r.open.find(e.sequence);
    if (open == r.open.end()) {
      tell_.violation("a sequence is sampled that was never opened");
      return;
    }
    if (r.last[e.sequence].ends)
      continue; // the step was formed before that was known
    actors::wire::sampled s;
    s.sequence = e.sequence;
    s.index = r.generated[e.sequence]++;
    s.token.id = choose_token(p.activations[at - 1], open->second.params);
    s.token.ends = is_last(s.token.id, s.index, open->second.params, s.token.ends_by_length);
    r.last[e.sequence] = s.token;
    r.known.sampled(e.sequence, s.token.id);
    result.tokens.push_back(s);
  }
  for (const auto s : m.closes) {
    r.open.erase(s);
    r.generated.erase(s);
    r.last.erase(s);
    r.known.close(s);
  }
  if (r.spec.replica_node.name != name_) {
    if (!send_to(r.spec.replica_node, std::move(result)))
      carry_out(agent_.rank_failed({m.replica, m.generation}, "the replica is not there"));
    return;
  }
  timer(1, [this, result = std::move(result)] {
    if (replicas_.contains({result.replica, result.generation}))
      take_result(result);
  });
}

void simulated_agent::take_result(const actors::wire::step_result& m) {
  const key who{m.replica, m.generation};
  std::erase_if(writers_[who], [&](const auto& w) { return w.second.second <= m.step; });
  carry_out(who, replicas_.at(who)->step_result(m, net_.now()));
}

std::string simulated_agent::leftovers() const {
  for (const auto& [who, r] : replicas_) {
    if (r->dead())
      continue;
    const auto s = r->status();
    if (!r->idle() || s.free_blocks != s.blocks)
      return name_ + ": replica " + std::to_string(who.first) + " generation " +
             std::to_string(who.second) + " holds " + std::to_string(s.running + s.waiting) +
             " sequences and " + std::to_string(s.blocks - s.free_blocks) +
             " blocks after all requests have ended";
  }
  return {};
}

} // namespace hexgen::tests
