// The generations that an agent holds: its part of prepare -> commit -> drain -> release.
#include "actors/core/agent_state.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <set>

namespace hexgen::actors {
namespace {

constexpr std::size_t most_generations = 256;
constexpr std::size_t most_known_tokens = 100'000; // they fit one frame's head, 1 MiB

template <class Message>
transport::frame control(proto::message_type type, const Message& m) {
  return {transport::traffic::control, static_cast<std::uint32_t>(type), m.SerializeAsString(), {}};
}

transport::frame prepared_frame(generation_id id, std::uint32_t kv_blocks, std::uint64_t bytes,
                                const std::map<std::uint32_t, prepare_result>& kept,
                                const std::string& error) {
  proto::prepared m;
  m.set_replica(id.replica);
  m.set_generation(id.generation);
  m.set_kv_blocks(kv_blocks);
  m.set_weight_bytes(bytes);
  for (const auto& [device, left] : kept) {
    auto* k = m.add_kept();
    k->set_device(device);
    k->set_generation(left.kept);
    for (const auto& late : left.late) {
      k->add_late_blocks(late.block);
      k->add_late_steps(late.step);
    }
    std::size_t tokens = 0;
    for (const auto& sequence : left.known) {
      if ((tokens += sequence.tokens.size()) > most_known_tokens)
        break;
      auto* one = k->add_known();
      one->mutable_tokens()->Add(sequence.tokens.begin(), sequence.tokens.end());
      one->mutable_blocks()->Add(sequence.blocks.begin(), sequence.blocks.end());
    }
    k->set_known_step(left.known_step);
  }
  m.set_error(error);
  return control(proto::PREPARED, m);
}

transport::frame committed_frame(generation_id id, const std::string& error) {
  proto::committed m;
  m.set_replica(id.replica);
  m.set_generation(id.generation);
  m.set_error(error);
  return control(proto::COMMITTED, m);
}

transport::frame released_frame(generation_id id, bool drained) {
  proto::released m;
  m.set_replica(id.replica);
  m.set_generation(id.generation);
  m.set_drained(drained);
  return control(proto::RELEASED, m);
}

/// Those that can be: what else is said is not gone on with.
std::vector<kept_sequence> known_of(const proto::commit& m) {
  std::vector<kept_sequence> out;
  for (const auto& k : m.known()) {
    const bool good = k.blocks_size() > 0 &&
                      k.tokens_size() / compute::block_tokens == k.blocks_size() &&
                      k.tokens_size() % compute::block_tokens == 0;
    if (good && out.size() < wire::limits::step_entries)
      out.push_back(
          {{k.tokens().begin(), k.tokens().end()}, {k.blocks().begin(), k.blocks().end()}});
  }
  return out;
}

std::string text_of(const placement& p) {
  return " replica=" + std::to_string(p.replica) + " generation=" + std::to_string(p.generation);
}

generation_id id_of(const placement& p) {
  return {p.replica, p.generation};
}

} // namespace

agent_state::local_generation* agent_state::find(generation_id id) {
  auto i = generations_.find(id.generation);
  return i == generations_.end() || i->second.where.replica != id.replica ? nullptr : &i->second;
}

rank_spec agent_state::spec_of(const placement& p, std::size_t stage, std::size_t rank) const {
  const auto& s = p.stages[stage];
  rank_spec spec;
  spec.replica = p.replica;
  spec.generation = p.generation;
  spec.stage = static_cast<std::uint32_t>(stage);
  spec.stages = static_cast<std::uint32_t>(p.stages.size());
  std::vector<double> speeds;
  for (const auto& r : s.ranks) {
    speeds.push_back(r.speed);
    spec.rank_nodes.push_back({r.node, r.incarnation});
    spec.rank_devices.push_back(r.device);
  }
  spec.part = compute::make_shards(config_, s.first_layer, s.layers, speeds).at(rank);
  if (stage + 1 < p.stages.size()) {
    const auto& next = p.stages[stage + 1].ranks.front();
    spec.next_node = {next.node, next.incarnation};
    spec.next_device = next.device;
  }
  spec.replica_node = {p.home().node, p.home().incarnation};
  spec.executor = executor_of(p.settings);
  spec.max_sequence = static_cast<int>(p.settings.max_sequence);
  spec.deterministic = p.settings.deterministic;
  spec.stage_recovery = p.settings.stage_recovery;
  return spec;
}

void agent_state::prepare(const transport::frame& f, agent_effects& out) {
  placement where;
  try {
    where = decode_placement(f.head);
  } catch (const wire::wire_error& e) {
    out.emplace_back(agent_do::log{std::string("event=bad_message why=\"") + e.what() + "\""});
    return;
  }
  const auto id = id_of(where);
  if (auto old = generations_.find(id.generation);
      old != generations_.end() && !old->second.releasing)
    return; // sent twice
  auto refuse = [&](const std::string& why) {
    to_coordinator(prepared_frame(id, 0, 0, {}, why), out);
  };
  if (!model_open_)
    return refuse("the model is not open yet");
  if (generations_.size() >= most_generations)
    return refuse("too many generations");
  local_generation g;
  g.head = f.head;
  std::vector<agent_do::prepare_rank> loads;
  try {
    for (std::size_t s = 0; s < where.stages.size(); ++s)
      for (std::size_t r = 0; r < where.stages[s].ranks.size(); ++r) {
        const auto& rank = where.stages[s].ranks[r];
        if (rank.node != options_.name || rank.incarnation != options_.incarnation)
          continue;
        if (rank.device >= options_.devices.size())
          return refuse("there is no device " + std::to_string(rank.device));
        if (!g.ranks.emplace(rank.device, static_cast<int>(s)).second)
          return refuse("device " + std::to_string(rank.device) + " is named twice");
        loads.push_back({rank.device, spec_of(where, s, r)});
      }
  } catch (const std::exception& e) {
    return refuse(e.what());
  }
  if (loads.empty())
    return refuse("no device of this incarnation is in it");
  g.replica_here = where.home().node == options_.name;
  for (const auto& [device, stage] : g.ranks)
    g.waiting.insert(device);
  out.emplace_back(
      agent_do::log{"event=prepare" + text_of(where) + " placement=\"" + where.to_text() + "\""});
  g.where = std::move(where);
  generations_[id.generation] = std::move(g);
  for (auto& l : loads)
    out.emplace_back(std::move(l));
}

agent_effects agent_state::rank_prepared(std::uint32_t device, generation_id id,
                                         const prepare_result& result) {
  agent_effects out;
  auto* g = find(id);
  if (g == nullptr || g->prepared || g->releasing || g->waiting.erase(device) == 0)
    return out;
  if (!result.error.empty())
    g->error = result.error;
  g->kv_blocks = std::min(g->kv_blocks, result.kv_blocks);
  g->weight_bytes += result.memory.weight_bytes;
  if (result.kept != 0)
    g->kept[device] = result;
  if (!g->waiting.empty())
    return out;
  g->prepared = g->error.empty();
  to_coordinator(prepared_frame(id, g->kv_blocks, g->weight_bytes, g->kept, g->error), out);
  return out;
}

void agent_state::commit(const proto::commit& m, agent_effects& out) {
  const generation_id id{m.replica(), m.generation()};
  auto* g = find(id);
  if (g == nullptr || !g->prepared || g->failed || g->releasing) {
    to_coordinator(committed_frame(id, "the generation is not prepared here"), out);
    return;
  }
  if (g->committed || !g->waiting.empty())
    return; // sent twice
  if (m.kv_blocks() == 0 || m.kv_blocks() > g->kv_blocks) {
    to_coordinator(committed_frame(id, "commit.kv_blocks is out of range"), out);
    return;
  }
  const auto is_hollow = [&](int stage) {
    return m.inherits() == 0 ||
           std::find(m.hollow().begin(), m.hollow().end(), stage) != m.hollow().end();
  };
  for (const auto& [device, stage] : g->ranks) {
    const auto kept = g->kept.find(device);
    if (!is_hollow(stage) && (kept == g->kept.end() || kept->second.kept != m.inherits())) {
      to_coordinator(committed_frame(id, "commit.inherits is not here"), out);
      return;
    }
  }
  g->kv_blocks = m.kv_blocks();
  g->inherits = m.inherits();
  g->known = known_of(m);
  for (const auto& [device, stage] : g->ranks) {
    g->waiting.insert(device);
    out.emplace_back(agent_do::commit_rank{
        device, id, {m.kv_blocks(), m.inherits(), is_hollow(stage), is_hollow(stage + 1)}});
  }
}

agent_effects agent_state::rank_committed(std::uint32_t device, generation_id id,
                                          const std::string& error) {
  agent_effects out;
  auto* g = find(id);
  if (g == nullptr || g->committed || g->releasing || g->waiting.erase(device) == 0)
    return out;
  if (!error.empty())
    g->error = error;
  if (!g->waiting.empty())
    return out;
  g->committed = g->error.empty();
  if (g->committed && g->replica_here) {
    replica_options r;
    r.replica = id.replica;
    r.generation = id.generation;
    r.stages = static_cast<int>(g->where.stages.size());
    // A GPU idles between two steps unless the next one waits for it. On a CPU forming a step is
    // nothing beside computing it, and a step formed early would admit requests late.
    const auto& home = options_.devices.at(g->ranks.begin()->first);
    r.steps_ahead = r.stages == 1 && home.kind == "cuda" ? 1 : 0;
    // A CPU computes 16 tokens in little more than a sixteenth part of 256; a GPU waits for its
    // memory until a step is far longer.
    r.even_chunk = home.kind == "cuda" ? 0 : 16;
    r.kv_blocks = g->kv_blocks;
    r.vocab = config_.vocab;
    r.max_sequence = static_cast<int>(g->where.settings.max_sequence);
    r.max_step_tokens = static_cast<int>(g->where.settings.max_step_tokens);
    r.max_running = executor_of(g->where.settings).max_logit_rows;
    r.max_waiting = static_cast<int>(g->where.settings.max_queued);
    r.draft_tokens = static_cast<int>(g->where.settings.draft_tokens);
    r.prefix_cache = g->where.settings.prefix_cache;
    r.stage_recovery = g->where.settings.stage_recovery;
    out.emplace_back(agent_do::start_replica{r, g->inherits, std::move(g->known)});
  }
  to_coordinator(committed_frame(id, g->error), out);
  return out;
}

void agent_state::drain(const proto::drain_generation& m, agent_effects& out) {
  const generation_id id{m.replica(), m.generation()};
  auto* g = find(id);
  if (g == nullptr || !g->committed || !g->replica_here)
    to_coordinator(released_frame(id, true), out); // nothing of it is here to wait for
  else {
    g->draining = true;
    out.emplace_back(agent_do::drain_replica{id, m.limit_ms()});
  }
}

agent_effects agent_state::replica_drained(generation_id id) {
  agent_effects out;
  to_coordinator(released_frame(id, true), out);
  return out;
}

void agent_state::release(generation_id id, bool keep, agent_effects& out) {
  auto* g = find(id);
  if (g == nullptr) {
    to_coordinator(released_frame(id, false), out);
    return;
  }
  if (g->releasing)
    return;
  if (g->replica_here && g->committed)
    out.emplace_back(agent_do::stop_replica{id, "the generation is released"});
  g->releasing = true;
  g->waiting.clear();
  for (const auto& [device, stage] : g->ranks) {
    g->waiting.insert(device);
    out.emplace_back(agent_do::release_rank{device, id, keep});
  }
}

agent_effects agent_state::rank_released(std::uint32_t device, generation_id id) {
  agent_effects out;
  auto* g = find(id);
  if (g == nullptr || !g->releasing || g->waiting.erase(device) == 0 || !g->waiting.empty())
    return out;
  out.emplace_back(agent_do::log{"event=released" + text_of(g->where)});
  generations_.erase(id.generation);
  to_coordinator(released_frame(id, false), out);
  return out;
}

void agent_state::fail(local_generation& g, const std::string& why, agent_effects& out) {
  if (g.failed || g.releasing)
    return;
  g.failed = true;
  const auto id = id_of(g.where);
  out.emplace_back(
      agent_do::log{"event=generation_failed" + text_of(g.where) + " why=\"" + why + "\""});
  for (const auto& [device, stage] : g.ranks)
    out.emplace_back(agent_do::abort_rank{device, id});
  if (g.replica_here && g.committed)
    out.emplace_back(agent_do::stop_replica{id, why});
  proto::generation_failed m;
  m.set_replica(id.replica);
  m.set_generation(id.generation);
  m.set_reason(why.substr(0, 1024));
  to_coordinator(control(proto::GENERATION_FAILED, m), out);
}

// On the slowest device here.
double agent_state::predicted_us(const local_generation& g, std::uint64_t steps,
                                 std::uint64_t tokens) const {
  double slowest_us = 0;
  for (const auto& [device, stage] : g.ranks) {
    const auto s = static_cast<std::size_t>(stage);
    const auto& r = rates_[device];
    const double head_us = s + 1 == g.where.stages.size() ? r.decode_us_head : 0;
    const double layers = g.where.stages[s].layers;
    slowest_us = std::max(slowest_us,
                          static_cast<double>(steps) * (r.decode_us_per_layer * layers + head_us) +
                              static_cast<double>(tokens) * r.prefill_us_per_token_layer * layers);
  }
  return slowest_us;
}

void agent_state::note_steps(const std::vector<rank_progress>& progress) {
  constexpr double weight = 0.2; // of what came since the last look
  for (const auto& p : progress) {
    auto* g = find({p.replica, p.generation});
    if (g == nullptr || p.last_step <= g->seen.last_step || p.done_us <= g->seen.done_us)
      continue;
    const double predicted =
        predicted_us(*g, p.last_step - g->seen.last_step,
                     p.done_tokens - std::min(p.done_tokens, g->seen.done_tokens));
    if (predicted > 0)
      g->slowness +=
          weight * (static_cast<double>(p.done_us - g->seen.done_us) / predicted - g->slowness);
    g->seen = p;
  }
}

// Eight times what it should take, a second at least. Generations that share a device wait for one
// another; ranks that share a stage between nodes wait for links whose times are not known here, so
// these get the time of the widest step.
std::uint64_t agent_state::late_after_ms(const std::vector<rank_progress>& progress) const {
  std::set<std::uint64_t> counted; // generations
  double all_us = 0;
  for (const auto& p : progress) {
    const auto i = generations_.find(p.generation);
    if (p.running_ms == 0 || i == generations_.end() || !counted.insert(p.generation).second)
      continue;
    const auto& g = i->second;
    const bool alone = std::all_of(g.ranks.begin(), g.ranks.end(), [&](const auto& r) {
      const auto& ranks = g.where.stages[static_cast<std::size_t>(r.second)].ranks;
      return std::all_of(ranks.begin(), ranks.end(),
                         [&](const auto& other) { return other.node == options_.name; });
    });
    all_us += std::max(1.0, g.slowness) *
              predicted_us(g, 1,
                           alone ? p.running_tokens
                                 : std::max<std::uint64_t>(p.running_tokens,
                                                           g.where.settings.max_step_tokens));
  }
  return static_cast<std::uint64_t>(std::max(1000.0, 8 * all_us / 1000));
}

// The coordinator sees a late step in the heartbeat and has its generation released. A step that
// goes on for a second after that holds its thread for good; when nobody has it released (the
// coordinator is away), it has one second more.
void agent_state::watch_devices(const std::vector<rank_progress>& progress, std::uint64_t now_us,
                                agent_effects& out) {
  constexpr std::uint64_t own_stall_us = 500'000, grace_us = 1'000'000;
  constexpr std::uint64_t hung_ms = 1000;
  if (ticked_us_ != 0 && now_us > ticked_us_ + own_stall_us)
    watch_from_us_ = now_us + grace_us; // this process stood still, not its device alone
  ticked_us_ = now_us;
  if (now_us < watch_from_us_ || leaving_)
    return;
  const auto late = late_after_ms(progress);
  for (const auto& p : progress) {
    const auto* g = find({p.replica, p.generation});
    if (g == nullptr)
      continue;
    const bool over = g->failed || g->releasing;
    if (p.running_ms <= late + (over ? hung_ms : 2 * hung_ms))
      continue;
    leaving_ = true;
    out.emplace_back(agent_do::leave{"a device hangs: step " + std::to_string(p.last_step + 1) +
                                         " has been running for " + std::to_string(p.running_ms) +
                                         " ms",
                                     true, true});
    return;
  }
}

agent_effects agent_state::rank_failed(generation_id id, const std::string& why) {
  agent_effects out;
  if (auto* g = find(id); g != nullptr)
    fail(*g, why, out);
  return out;
}

agent_effects agent_state::replica_status(const wire::replica_status& status) {
  agent_effects out;
  to_coordinator({transport::traffic::control, proto::REPLICA_STATUS, encode(status), {}}, out);
  return out;
}

} // namespace hexgen::actors
