#include "actors/core/generation_set.hpp"

#include "transport/proto/hexgen.pb.h"

#include <algorithm>

namespace hexgen::actors {
namespace {

constexpr std::size_t most_adopted = 1024;

template <class Message>
transport::frame control(proto::message_type type, const Message& m) {
  return {transport::traffic::control, static_cast<std::uint32_t>(type), m.SerializeAsString(), {}};
}

transport::frame release_frame(std::uint64_t replica, std::uint64_t generation, bool keep = false) {
  proto::release m;
  m.set_replica(replica);
  m.set_generation(generation);
  m.set_keep(keep);
  return control(proto::RELEASE, m);
}

std::string text_of(const generation_record& g) {
  return " replica=" + std::to_string(g.where.replica) +
         " generation=" + std::to_string(g.where.generation);
}

} // namespace

const char* to_string(generation_phase phase) {
  switch (phase) {
  case generation_phase::adopting:
    return "adopting";
  case generation_phase::preparing:
    return "preparing";
  case generation_phase::parked:
    return "waiting for room";
  case generation_phase::committing:
    return "committing";
  case generation_phase::serving:
    return "serving";
  case generation_phase::draining:
    return "draining";
  case generation_phase::releasing:
    return "releasing";
  }
  return "?";
}

void generation_set::enter(generation_record& g, generation_phase phase, time_ms now) {
  g.phase = phase;
  g.since_ms = now;
  g.waiting = g.where.nodes();
}

void generation_set::send_prepare(generation_record& g, time_ms now, generation_effects& fx) {
  enter(g, generation_phase::preparing, now);
  g.kv_blocks = UINT32_MAX;
  g.weight_bytes = 0;
  g.kept.clear();
  g.trouble.clear();
  const auto head = encode(g.where);
  for (const auto& node : g.waiting)
    fx.sends.emplace_back(node,
                          transport::frame{transport::traffic::control, proto::PREPARE, head, {}});
  fx.log.push_back("event=prepare" + text_of(g) + " placement=\"" + g.where.to_text() + "\"");
}

void generation_set::exchange(std::vector<addition> add, const std::set<std::uint64_t>& remove,
                              std::uint32_t need_blocks, time_ms now, generation_effects& fx) {
  ++epoch_;
  need_blocks_ = std::max<std::uint32_t>(1, need_blocks);
  outgoing_.insert(remove.begin(), remove.end());
  for (auto& a : add) {
    generation_record g;
    g.where = std::move(a.where);
    g.where.epoch = epoch_;
    g.where.generation = ++last_generation_;
    g.tokens_per_s = a.tokens_per_s;
    auto& placed = records_[g.where.generation] = std::move(g);
    send_prepare(placed, now, fx);
  }
  after_exchange(now, fx);
}

void generation_set::prepared(const std::string& node, const proto::prepared& m, time_ms now,
                              generation_effects& fx) {
  auto i = records_.find(m.generation());
  if (i == records_.end() || i->second.phase != generation_phase::preparing ||
      i->second.waiting.erase(node) == 0)
    return;
  auto& g = i->second;
  g.kv_blocks = std::min(g.kv_blocks, m.kv_blocks());
  g.weight_bytes += m.weight_bytes();
  for (const auto& k : m.kept()) {
    auto& left = g.kept[k.generation()];
    left.ranks.emplace(node, k.device());
    for (int i = 0; i < std::min(k.late_blocks_size(), k.late_steps_size()); ++i) {
      auto& step = left.late[k.late_blocks(i)];
      step = std::max(step, k.late_steps(i));
    }
    if (k.known_size() > 0) {
      proto::commit part;
      part.mutable_known()->CopyFrom(k.known());
      left.known = part.SerializeAsString();
      left.known_step = k.known_step();
    }
  }
  if (!m.error().empty())
    g.trouble = node + ": " + m.error().substr(0, 1024);
  else if (m.kv_blocks() < need_blocks_)
    g.trouble = node + ": memory for " + std::to_string(m.kv_blocks()) + " KV blocks, " +
                std::to_string(need_blocks_) + " are needed";
  if (g.waiting.empty())
    judge_prepared(i, now, fx);
}

void generation_set::judge_prepared(iterator i, time_ms now, generation_effects& fx) {
  auto& g = i->second;
  if (!g.trouble.empty()) {
    const bool room_can_be_made =
        !g.retried && std::any_of(records_.begin(), records_.end(), [&](const auto& r) {
          return (outgoing_.count(r.first) != 0 || r.second.phase == generation_phase::releasing) &&
                 r.first != i->first && r.second.where.shares_device(g.where);
        });
    if (!room_can_be_made) {
      give_up(i, g.trouble, now, fx);
      return;
    }
    fx.log.push_back("event=make_room" + text_of(g) + " why=\"" + g.trouble + "\"");
    for (const auto& node : g.where.nodes())
      fx.sends.emplace_back(node, release_frame(g.where.replica, g.where.generation));
    enter(g, generation_phase::parked, now); // until each node has let go of what it loaded
    for (auto& [id, old] : records_)
      if (outgoing_.count(id) != 0 && old.where.shares_device(g.where) &&
          old.phase == generation_phase::serving)
        drain(old, true, now, fx);
    unpark(now, fx);
    return;
  }
  enter(g, generation_phase::committing, now);
  proto::commit m;
  m.set_replica(g.where.replica);
  m.set_generation(g.where.generation);
  m.set_kv_blocks(g.kv_blocks);
  inherit(g, m, fx);
  for (const auto& node : g.waiting)
    fx.sends.emplace_back(node, control(proto::COMMIT, m));
  fx.log.push_back("event=commit" + text_of(g));
}

// The KV of a generation that ended is gone on with where its replica's node still holds it: the
// replica knows what is in it. When that is another node now, the last stage has told it. Stages
// that do not hold it compute it from what the stage before them kept.
void generation_set::inherit(const generation_record& g, proto::commit& m, generation_effects& fx) {
  for (const auto& [generation, left] : g.kept) {
    std::vector<std::uint32_t> hollow;
    for (std::uint32_t s = 0; s < g.where.stages.size(); ++s) {
      const auto& ranks = g.where.stages[s].ranks;
      if (!std::all_of(ranks.begin(), ranks.end(), [&](const auto& r) {
            return left.ranks.count({r.node, r.device}) != 0;
          }))
        hollow.push_back(s);
    }
    const auto& home = g.where.home();
    const bool moved = left.ranks.count({home.node, home.device}) == 0;
    if (hollow.size() == g.where.stages.size() || (moved && left.known.empty()))
      continue;
    if (moved) {
      proto::commit part;
      part.ParseFromString(left.known);
      // What a stage has written since into blocks of a sequence that had gone is not the
      // sequence's.
      for (const auto& k : part.known())
        if (std::none_of(k.blocks().begin(), k.blocks().end(), [&](std::uint32_t b) {
              const auto late = left.late.find(b);
              return late != left.late.end() && late->second > left.known_step;
            }))
          *m.add_known() = k;
    }
    ++inherited_;
    m.set_inherits(generation);
    m.mutable_hollow()->Add(hollow.begin(), hollow.end());
    fx.log.push_back("event=inherit" + text_of(g) + " from=" + std::to_string(generation) +
                     " new_stages=" + std::to_string(hollow.size()));
    return;
  }
}

void generation_set::committed(const std::string& node, const proto::committed& m, time_ms now,
                               generation_effects& fx) {
  auto i = records_.find(m.generation());
  if (i == records_.end() || i->second.phase != generation_phase::committing ||
      i->second.waiting.erase(node) == 0)
    return;
  if (!m.error().empty())
    i->second.trouble = node + ": " + m.error().substr(0, 1024);
  if (i->second.waiting.empty())
    judge_committed(i, now, fx);
}

void generation_set::judge_committed(iterator i, time_ms now, generation_effects& fx) {
  auto& g = i->second;
  if (!g.trouble.empty()) {
    give_up(i, g.trouble, now, fx);
    return;
  }
  enter(g, generation_phase::serving, now);
  g.waiting.clear();
  fx.routes_changed = true;
  fx.log.push_back("event=serving" + text_of(g) + " kv_blocks=" + std::to_string(g.kv_blocks));
  after_exchange(now, fx);
}

// The old generations go when nothing new is on its way any more.
void generation_set::after_exchange(time_ms now, generation_effects& fx) {
  if (exchanging())
    return;
  for (auto id : outgoing_) {
    auto i = records_.find(id);
    if (i != records_.end() && i->second.phase == generation_phase::serving)
      drain(i->second, false, now, fx);
  }
  outgoing_.clear();
}

void generation_set::drain(generation_record& g, bool make_room, time_ms now,
                           generation_effects& fx) {
  enter(g, generation_phase::draining, now);
  g.release_first = make_room;
  g.waiting = {g.where.home().node};
  proto::drain_generation m;
  m.set_replica(g.where.replica);
  m.set_generation(g.where.generation);
  m.set_limit_ms(make_room ? times_.make_room_ms : times_.drain_ms);
  fx.sends.emplace_back(g.where.home().node, control(proto::DRAIN_GENERATION, m));
  fx.routes_changed = true;
  fx.log.push_back("event=drain" + text_of(g));
}

void generation_set::release(generation_record& g, bool keep, time_ms now, generation_effects& fx) {
  if (g.phase == generation_phase::serving || g.phase == generation_phase::draining)
    fx.routes_changed = true;
  enter(g, generation_phase::releasing, now);
  // A lost node is told too, should it be alive after all; nobody waits for its answer.
  for (const auto& node : g.waiting)
    fx.sends.emplace_back(node, release_frame(g.where.replica, g.where.generation, keep));
  for (const auto& s : g.where.stages)
    for (const auto& r : s.ranks)
      if (lost_.count({r.node, r.incarnation}) != 0)
        g.waiting.erase(r.node);
  fx.log.push_back("event=release" + text_of(g));
}

void generation_set::give_up(iterator i, const std::string& why, time_ms now,
                             generation_effects& fx) {
  auto& g = i->second;
  if (g.phase == generation_phase::releasing)
    return;
  const bool wanted = outgoing_.count(i->first) == 0 && g.phase != generation_phase::draining;
  fx.log.push_back("event=generation_failed" + text_of(g) + " phase=" + to_string(g.phase) +
                   " why=\"" + why + "\"");
  ++failures_;
  fx.broken = true;
  if (wanted && fx.replan.empty())
    fx.replan = why;
  // What was to make way for it stays as long as nothing better has come.
  if (g.phase == generation_phase::preparing || g.phase == generation_phase::committing ||
      g.phase == generation_phase::parked)
    outgoing_.clear();
  // Those of its stages that are left may serve on in what follows, with what they hold.
  const bool keep = g.where.settings.stage_recovery &&
                    (g.phase == generation_phase::serving || g.phase == generation_phase::draining);
  if (keep)
    fx.ended.push_back(g.where);
  release(g, keep, now, fx);
  erase_released(now, fx);
}

void generation_set::released(const std::string& node, const proto::released& m, time_ms now,
                              generation_effects& fx) {
  auto i = records_.find(m.generation());
  if (i == records_.end())
    return;
  auto& g = i->second;
  if (m.drained()) {
    if (g.phase == generation_phase::draining)
      release(g, false, now, fx);
  } else if (g.phase == generation_phase::releasing) {
    g.waiting.erase(node);
  } else if (g.phase == generation_phase::parked) {
    g.waiting.erase(node);
    unpark(now, fx);
  }
  erase_released(now, fx);
}

void generation_set::erase_released(time_ms now, generation_effects& fx) {
  const auto before = records_.size();
  for (auto i = records_.begin(); i != records_.end();) {
    if (i->second.phase == generation_phase::releasing && i->second.waiting.empty()) {
      outgoing_.erase(i->first);
      i = records_.erase(i);
    } else {
      ++i;
    }
  }
  if (records_.size() != before)
    unpark(now, fx);
}

// A parked generation is prepared again when neither its first attempt nor anything that leaves
// holds its devices any more.
void generation_set::unpark(time_ms now, generation_effects& fx) {
  for (auto& [id, g] : records_) {
    if (g.phase != generation_phase::parked)
      continue;
    const bool blocked =
        !g.waiting.empty() ||
        std::any_of(records_.begin(), records_.end(), [&, self = id](const auto& r) {
          return r.first != self && r.second.where.shares_device(g.where) &&
                 (r.second.phase == generation_phase::draining ||
                  r.second.phase == generation_phase::releasing);
        });
    if (blocked)
      continue;
    g.retried = true;
    send_prepare(g, now, fx);
  }
}

void generation_set::failed(const std::string& node, std::uint64_t generation,
                            const std::string& why, time_ms now, generation_effects& fx) {
  auto i = records_.find(generation);
  if (i != records_.end() && i->second.where.nodes().count(node) != 0)
    give_up(i, node + ": " + why.substr(0, 1024), now, fx);
}

void generation_set::status(const std::string& node, wire::replica_status m) {
  auto i = records_.find(m.generation);
  if (i == records_.end() || i->second.where.home().node != node)
    return;
  const auto known = i->second.status ? i->second.status->resumed : 0;
  resumed_ += m.resumed - std::min(m.resumed, known);
  i->second.status = std::move(m);
}

void generation_set::predicted(std::uint64_t generation, double tokens_per_s) {
  if (auto i = records_.find(generation); i != records_.end())
    i->second.tokens_per_s = tokens_per_s;
}

void generation_set::node_lost(const std::string& node, std::uint64_t incarnation,
                               const std::string& why, time_ms now, generation_effects& fx) {
  if (lost_.size() > 4096)
    lost_.clear();
  lost_.emplace(node, incarnation);
  std::vector<std::uint64_t> hit;
  for (auto& [id, g] : records_)
    if (g.where.uses(node, incarnation)) {
      if (g.phase == generation_phase::releasing)
        g.waiting.erase(node);
      else
        hit.push_back(id);
    }
  for (auto id : hit)
    if (auto i = records_.find(id); i != records_.end())
      give_up(i, node + " is lost: " + why, now, fx);
  erase_released(now, fx);
  after_exchange(now, fx);
}

void generation_set::held(const std::string& node, std::uint64_t incarnation,
                          const proto::held_generation& m, time_ms now, generation_effects& fx) {
  lost_.erase({node, incarnation});
  auto refuse = [&] { fx.sends.emplace_back(node, release_frame(m.replica(), m.generation())); };
  placement where;
  try {
    where = decode_placement(m.placement());
  } catch (const wire::wire_error&) {
    refuse();
    return;
  }
  // Numbers of another coordinator's range are not continued: it may have given out more of them.
  if (m.generation() > first_generation_ && m.generation() - first_generation_ < (1U << 12U))
    last_generation_ = std::max(last_generation_, m.generation());
  epoch_ = std::max(epoch_, where.epoch);
  auto i = records_.find(m.generation());
  if (i != records_.end()) {
    auto& g = i->second;
    if (!g.where.same_place(where) || g.phase == generation_phase::releasing) {
      refuse();
      return;
    }
    if (g.phase != generation_phase::adopting)
      return; // a short break of the connection: nothing changed
  }
  if (!m.committed() || where.generation != m.generation() || where.replica != m.replica() ||
      !where.uses(node, incarnation) || records_.size() >= most_adopted) {
    refuse();
    if (i != records_.end())
      give_up(i, node + " does not serve it any more", now, fx);
    return;
  }
  if (i == records_.end()) {
    generation_record fresh;
    fresh.where = std::move(where);
    fresh.kv_blocks = m.kv_blocks();
    i = records_.emplace(m.generation(), std::move(fresh)).first;
    enter(i->second, generation_phase::adopting, now);
  }
  auto& g = i->second;
  g.waiting.erase(node);
  g.kv_blocks = std::min(g.kv_blocks, m.kv_blocks());
  if (!g.waiting.empty())
    return;
  enter(g, generation_phase::serving, now);
  g.waiting.clear();
  fx.routes_changed = true;
  fx.log.push_back("event=adopted" + text_of(g));
}

void generation_set::tick(time_ms now, generation_effects& fx) {
  std::vector<std::uint64_t> late;
  for (auto& [id, g] : records_) {
    const auto age = now - std::min(now, g.since_ms);
    switch (g.phase) {
    case generation_phase::adopting:
      if (age > times_.adopt_ms)
        late.push_back(id);
      break;
    case generation_phase::preparing:
      if (age > times_.prepare_ms)
        late.push_back(id);
      break;
    case generation_phase::parked: // by then all that makes way for it is released
      if (age > times_.make_room_ms + 1000ULL + times_.release_ms + 1000ULL)
        late.push_back(id);
      break;
    case generation_phase::committing:
      if (age > times_.commit_ms)
        late.push_back(id);
      break;
    case generation_phase::draining:
      if (age > (g.release_first ? times_.make_room_ms : times_.drain_ms) + 1000ULL)
        release(g, false, now, fx);
      break;
    case generation_phase::releasing:
      if (age > times_.release_ms)
        g.waiting.clear();
      break;
    case generation_phase::serving:
      break;
    }
  }
  for (auto id : late)
    if (auto i = records_.find(id); i != records_.end()) {
      std::string missing;
      for (const auto& node : i->second.waiting)
        missing += (missing.empty() ? "" : ", ") + node;
      give_up(i,
              std::string(to_string(i->second.phase)) + " took too long; no answer from " + missing,
              now, fx);
    }
  erase_released(now, fx);
  after_exchange(now, fx);
}

bool generation_set::exchanging() const {
  return std::any_of(records_.begin(), records_.end(), [](const auto& r) {
    return r.second.phase == generation_phase::preparing ||
           r.second.phase == generation_phase::parked ||
           r.second.phase == generation_phase::committing;
  });
}

bool generation_set::adopting() const {
  return std::any_of(records_.begin(), records_.end(),
                     [](const auto& r) { return r.second.phase == generation_phase::adopting; });
}

bool generation_set::crowded() const {
  for (auto a = records_.begin(); a != records_.end(); ++a)
    for (auto b = std::next(a); b != records_.end(); ++b)
      if (a->second.phase == generation_phase::serving &&
          b->second.phase == generation_phase::serving &&
          a->second.where.shares_device(b->second.where))
        return true;
  return false;
}

bool generation_set::uses(const std::string& node) const {
  return std::any_of(records_.begin(), records_.end(),
                     [&](const auto& r) { return r.second.where.nodes().count(node) != 0; });
}

std::size_t generation_set::serving() const {
  return static_cast<std::size_t>(
      std::count_if(records_.begin(), records_.end(),
                    [](const auto& r) { return r.second.phase == generation_phase::serving; }));
}

double generation_set::serving_tokens_per_s() const {
  double sum = 0;
  for (const auto& [id, g] : records_)
    if (g.phase == generation_phase::serving)
      sum += g.tokens_per_s;
  return sum;
}

} // namespace hexgen::actors
