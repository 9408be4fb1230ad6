#include "actors/core/replica_state.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <type_traits>

namespace hexgen::actors {
namespace {

constexpr time_us rate_window_us = 1'000'000;

time_us to_us(double ms) {
  return ms > 0 ? static_cast<time_us>(std::min(ms, 1e9) * 1000.0) : 0;
}

scheduler::batcher_options batcher_options(const replica_options& o) {
  scheduler::batcher_options b;
  b.blocks = o.kv_blocks;
  b.steps_in_flight = std::max(o.stages, 1);
  b.steps_ahead = o.stages == 1 ? o.steps_ahead : 0;
  b.max_step_tokens = o.max_step_tokens;
  b.even_chunk = o.even_chunk;
  b.max_running = o.max_running;
  b.max_waiting = o.max_waiting;
  b.max_sequence = o.max_sequence;
  b.draft_tokens = o.draft_tokens;
  b.prefix_cache = o.prefix_cache;
  b.key = o.prefix_key;
  b.inherited = o.inherited;
  return b;
}

} // namespace

static_assert(std::is_same_v<compute::token_id, scheduler::token>);
static_assert(compute::block_tokens == scheduler::kv_block_tokens);
static_assert(compute::unknown_token == scheduler::unknown_token);

struct replica_state::request {
  key origin;
  wire::submit wish; // prompt, emitted and parameters, for the last stage's sampler
  std::uint32_t attempt = 0;
  int next_index = 0;              // of the next generated token
  time_us arrived = 0, queued = 0; // queued: until its first step
  bool stepped = false;
  bool opened = false; // the last stage has a sampler for it
  bool silent = false; // cancelled, waiting for its step: nothing more is told
};

std::size_t replica_state::key_hash::operator()(const key& k) const {
  return std::hash<std::uint64_t>{}(k.router * 0x9e3779b97f4a7c15ULL ^ k.request);
}

replica_state::replica_state(replica_options options)
    : options_(std::move(options)), batcher_(batcher_options(options_)) {}

replica_state::~replica_state() = default;

replica_effects replica_state::submit(router_id from, wire::submit m, time_us now) {
  replica_effects out;
  const auto known = sequence_of_.find({from, m.request});
  if (known != sequence_of_.end()) {
    if (m.attempt <= requests_.at(known->second)->attempt)
      return out; // told twice
    drop(known->second);
  }
  if (dead_ || draining_) {
    refuse(out, from, m, true, 503, dead_ ? "the generation is over" : "the replica is draining");
    return out;
  }
  if (const auto [status, why] = check(m); status != 0) {
    refuse(out, from, m, false, status, why);
    return out;
  }

  const int emitted = static_cast<int>(m.emitted.size());
  const int room = options_.max_sequence - static_cast<int>(m.prompt.size());
  const auto kv_room = static_cast<std::int64_t>(options_.kv_blocks) * compute::block_tokens -
                       static_cast<std::int64_t>(m.prompt.size());
  m.params.max_tokens =
      static_cast<int>(std::min<std::int64_t>({m.params.max_tokens, room, kv_room}));
  scheduler::sequence_request r;
  r.id = next_sequence_++;
  r.tokens = m.prompt;
  r.tokens.insert(r.tokens.end(), m.emitted.begin(), m.emitted.end());
  r.max_new = m.params.max_tokens - emitted;
  r.priority = m.priority;
  r.ttft_us = to_us(m.ttft_deadline_ms);
  r.tpot_us = to_us(m.tpot_deadline_ms);
  // A request that already streams, or lost its replica, is not turned away by newcomers.
  r.must_take = emitted > 0 || m.attempt > 0;
  const bool retry_when_full = r.must_take;
  switch (batcher_.submit(std::move(r), now)) {
  case scheduler::submit_verdict::full:
    refuse(out, from, m, retry_when_full, 429, "the replica's queue is full");
    return out;
  case scheduler::submit_verdict::too_long:
    refuse(out, from, m, false, 400, "the sequence does not fit the KV cache");
    return out;
  case scheduler::submit_verdict::accepted:
    break;
  }
  resumed_ += retry_when_full ? 1 : 0;
  const std::uint64_t sequence = next_sequence_ - 1;
  auto q = std::make_unique<request>();
  q->origin = {from, m.request};
  q->attempt = m.attempt;
  q->next_index = emitted;
  q->arrived = now;
  q->wish = std::move(m);
  sequence_of_[q->origin] = sequence;
  requests_.emplace(sequence, std::move(q));
  pump(out, now);
  return out;
}

std::pair<std::uint32_t, std::string> replica_state::check(const wire::submit& m) const {
  if (m.prompt.empty())
    return {400, "the prompt is empty"};
  if (options_.vocab > 0) {
    const auto bad = [&](compute::token_id id) { return id < 0 || id >= options_.vocab; };
    if (std::any_of(m.prompt.begin(), m.prompt.end(), bad) ||
        std::any_of(m.emitted.begin(), m.emitted.end(), bad) ||
        std::any_of(m.params.stop_ids.begin(), m.params.stop_ids.end(), bad) ||
        std::any_of(m.params.logit_bias.begin(), m.params.logit_bias.end(),
                    [&](const auto& b) { return bad(b.first); }))
      return {400, "a token id is not in the vocabulary"};
  }
  const auto most =
      std::min<std::uint64_t>(static_cast<std::uint64_t>(std::max(options_.max_sequence, 0)),
                              std::uint64_t{options_.kv_blocks} * compute::block_tokens);
  if (m.prompt.size() + m.emitted.size() >= most)
    return {400, "prompt and output of " + std::to_string(m.prompt.size() + m.emitted.size()) +
                     " tokens leave no room for more: at most " + std::to_string(most)};
  if (m.params.max_tokens <= static_cast<int>(m.emitted.size()))
    return {400, "max_tokens leaves nothing to generate"};
  return {0, ""};
}

void replica_state::refuse(replica_effects& out, router_id to, const wire::submit& m, bool retry,
                           std::uint32_t status, std::string why) {
  out.push_back(send_failed{to, {m.request, m.attempt, retry, status, std::move(why)}});
}

replica_effects replica_state::cancel(router_id from, const wire::cancel& m, time_us now) {
  replica_effects out;
  const auto it = sequence_of_.find({from, m.request});
  if (it == sequence_of_.end() || requests_.at(it->second)->attempt > m.attempt)
    return out;
  drop(it->second);
  pump(out, now);
  return out;
}

replica_effects replica_state::router_lost(router_id from, time_us now) {
  replica_effects out;
  std::vector<std::uint64_t> gone;
  for (const auto& [origin, sequence] : sequence_of_)
    if (origin.router == from)
      gone.push_back(sequence);
  std::sort(gone.begin(), gone.end());
  for (const auto sequence : gone)
    drop(sequence);
  pump(out, now);
  return out;
}

/// Its router wants no more of it. What is in flight runs out first.
void replica_state::drop(std::uint64_t sequence) {
  request& q = *requests_.at(sequence);
  sequence_of_.erase(q.origin);
  if (batcher_.cancel(sequence))
    forget(sequence);
  else
    q.silent = true;
}

/// The batcher has let go of it.
void replica_state::forget(std::uint64_t sequence) {
  const auto it = requests_.find(sequence);
  if (!it->second->silent) {
    const auto origin = sequence_of_.find(it->second->origin);
    if (origin != sequence_of_.end() && origin->second == sequence)
      sequence_of_.erase(origin);
  }
  if (it->second->opened)
    closes_.push_back(sequence);
  requests_.erase(it);
}

replica_effects replica_state::step_result(const wire::step_result& m, time_us now) {
  replica_effects out;
  if (dead_ || m.replica != options_.replica || m.generation != options_.generation)
    return out;
  if (!m.error.empty()) {
    break_down(out, "step " + std::to_string(m.step) + " failed: " + m.error);
    return out;
  }
  // Checked before anything changes: a result that does not fit poisons the generation.
  std::vector<scheduler::sampled_id> ids;
  const wire::sampled* before = nullptr;
  for (const auto& t : m.tokens) {
    const auto it = requests_.find(t.sequence);
    const bool follows = before != nullptr && before->sequence == t.sequence; // a draft that stood
    if (it == requests_.end() ||
        t.index != (follows ? before->index + 1 : it->second->next_index) ||
        (options_.vocab > 0 && t.token.id >= options_.vocab)) {
      break_down(out,
                 "step " + std::to_string(m.step) + " returned a token that was not asked for");
      return out;
    }
    ids.push_back({t.sequence, t.token.id, t.token.ends || !t.error.empty()});
    before = &t;
  }
  std::vector<std::uint32_t> cached;
  for (const auto& t : m.tokens)
    cached.push_back(static_cast<std::uint32_t>(batcher_.cached_tokens(t.sequence)));
  const auto outcome = batcher_.complete(m.step, ids, now);
  if (!outcome.error.empty()) {
    break_down(out, outcome.error);
    return out;
  }
  last_step_ = m.step;
  flights_.erase(flights_.begin());
  if (options_.steps_ahead > 0 && !flights_.empty())
    flights_.front().second = now; // it was formed ahead and begins now
  std::map<router_id, std::vector<wire::token_chunk>> chunks;
  for (std::size_t i = 0; i < m.tokens.size(); ++i) {
    request& q = *requests_.at(m.tokens[i].sequence);
    ++q.next_index;
    if (!m.tokens[i].error.empty()) {
      if (!q.silent)
        out.push_back(send_failed{q.origin.router,
                                  {q.origin.request, q.attempt, false, 400, m.tokens[i].error}});
      continue;
    }
    ++rate_tokens_;
    if (q.silent)
      continue;
    auto& to_router = chunks[q.origin.router];
    if (i > 0 && m.tokens[i - 1].sequence == m.tokens[i].sequence) // drafts that stood
      to_router.back().tokens.push_back(m.tokens[i]);
    else
      to_router.push_back(
          {q.origin.request, q.attempt, m.tokens[i].index, {m.tokens[i]}, cached[i], q.queued});
  }
  for (auto& [to, of_it] : chunks)
    out.push_back(send_chunks{to, std::move(of_it)});
  for (const auto sequence : outcome.ended)
    forget(sequence);
  for (const auto sequence : outcome.cancelled)
    forget(sequence);
  note_stages(m.stage_us);
  pump(out, now);
  return out;
}

void replica_state::note_stages(const std::vector<std::uint64_t>& us) {
  if (us.empty() || us.size() > static_cast<std::size_t>(std::max(options_.stages, 1)))
    return; // a step of inherited blocks tells no times
  stage_us_.resize(us.size());
  for (std::size_t i = 0; i < us.size(); ++i)
    stage_us_[i] += (static_cast<double>(us[i]) - stage_us_[i]) * (stage_us_[i] == 0 ? 1.0 : 0.1);
}

/// Forms steps as long as there is work and a free place in the pipeline.
void replica_state::pump(replica_effects& out, time_us now) {
  while (!dead_) {
    auto step = batcher_.next(now);
    if (!step)
      break;
    send_step s;
    s.message.replica = options_.replica;
    s.message.generation = options_.generation;
    s.message.step = step->number;
    s.message.refill = step->refill;
    s.message.ids = std::move(step->ids);
    s.message.work.copies = std::move(step->copies);
    s.message.closes = std::move(closes_);
    closes_.clear();
    auto run_end = s.message.ids.cbegin();
    for (auto& e : step->entries) {
      request& q = *requests_.at(e.sequence);
      if (!std::exchange(q.stepped, true))
        q.queued = now - q.arrived;
      if (e.opens) {
        q.opened = true;
        s.message.opens.push_back(
            {e.sequence, q.wish.params, std::move(q.wish.prompt), std::move(q.wish.emitted)});
      }
      run_end += e.tokens;
      if (e.logits > 1)
        s.message.drafts.insert(s.message.drafts.end(), run_end - (e.logits - 1), run_end);
      s.message.work.entries.push_back(
          {e.sequence, e.position, e.tokens, e.logits, std::move(e.blocks)});
    }
    flights_.emplace_back(step->number, now);
    out.push_back(std::move(s));
  }
  if (draining_ && !drained_told_ && requests_.empty() && flights_.empty()) {
    drained_told_ = true;
    out.push_back(replica_drained{});
  }
}

replica_effects replica_state::drain(time_us now) {
  replica_effects out;
  draining_ = true;
  pump(out, now);
  return out;
}

replica_effects replica_state::abort(const std::string& reason, time_us) {
  replica_effects out;
  if (!dead_)
    fail_all(out, reason);
  return out;
}

void replica_state::break_down(replica_effects& out, const std::string& reason) {
  fail_all(out, reason);
  out.push_back(replica_broken{reason});
}

void replica_state::fail_all(replica_effects& out, const std::string& reason) {
  dead_ = true;
  std::vector<std::uint64_t> all;
  for (const auto& [sequence, q] : requests_)
    all.push_back(sequence);
  std::sort(all.begin(), all.end());
  for (const auto sequence : all) {
    const request& q = *requests_.at(sequence);
    if (!q.silent)
      out.push_back(send_failed{q.origin.router, {q.origin.request, q.attempt, true, 503, reason}});
  }
  requests_.clear();
  sequence_of_.clear();
  flights_.clear();
  closes_.clear();
}

replica_effects replica_state::tick(time_us now) {
  replica_effects out;
  if (now >= rate_from_ + rate_window_us) {
    tokens_per_s_ = rate_from_ == 0 ? 0
                                    : static_cast<double>(rate_tokens_) * 1e6 /
                                          static_cast<double>(now - rate_from_);
    rate_from_ = now;
    rate_tokens_ = 0;
  }
  pump(out, now);
  return out;
}

bool replica_state::idle() const {
  return requests_.empty();
}

bool replica_state::dead() const {
  return dead_;
}

std::uint64_t replica_state::last_step() const {
  return last_step_;
}

time_us replica_state::oldest_step_age(time_us now) const {
  return flights_.empty() || now <= flights_.front().second ? 0 : now - flights_.front().second;
}

wire::replica_status replica_state::status() const {
  const auto b = batcher_.stats();
  wire::replica_status s;
  s.replica = options_.replica;
  s.generation = options_.generation;
  s.running = b.running;
  s.waiting = b.waiting;
  s.free_blocks = b.free_blocks;
  s.blocks = b.blocks;
  s.tokens_per_s = tokens_per_s_;
  s.stage_us = stage_us_;
  s.steps = b.steps;
  s.preemptions = b.preemptions;
  s.prefix_queries = b.prefix_queries;
  s.prefix_hits = b.prefix_hits;
  s.prompt_tokens = b.prompt_tokens;
  s.generated_tokens = b.generated_tokens;
  s.step_tokens = b.step_tokens;
  s.draft_tokens = b.draft_tokens;
  s.accepted_tokens = b.accepted_tokens;
  s.resumed = resumed_;
  s.step_sizes.assign(b.step_sizes.begin(), b.step_sizes.end());
  return s;
}

const replica_options& replica_state::options() const {
  return options_;
}

const scheduler::step_batcher& replica_state::batcher() const {
  return batcher_;
}

} // namespace hexgen::actors
