#include "scheduler/engine/step_batcher.hpp"

#include "scheduler/engine/draft_proposer.hpp"

#include <algorithm>
#include <limits>

namespace hexgen::scheduler {
namespace {

// Bounds of one step's message, far above what a step needs.
constexpr std::size_t step_block_ids = 1U << 17;
constexpr std::size_t step_open_tokens = 1U << 16;
// A prefill chunk beside decodes is not made smaller than this: short runs waste the weights' read.
constexpr int least_chunk = 64;
constexpr int most_priority = 100;

/// A token, and before it any number of `draft`'s first ones.
bool continues(std::span<const token> draft, std::span<const sampled_id> got) {
  return !got.empty() && got.size() <= draft.size() + 1 &&
         std::ranges::equal(got.first(got.size() - 1), draft.first(got.size() - 1),
                            [](const sampled_id& t, token d) { return !t.ends && t.id == d; });
}

} // namespace

struct step_batcher::sequence {
  sequence_id id = 0;
  order_key order;
  std::vector<token> tokens; // known: given and generated
  std::size_t given = 0;     // of `tokens`, at submit
  std::size_t most = 0;      // tokens at the end, at most
  std::size_t computed = 0;  // positions whose KV is there or will be by a step in flight
  std::size_t pending = 0;   // tokens that steps in flight will choose
  std::vector<block_id> blocks;
  std::vector<std::uint64_t> hashes; // of published blocks
  std::uint64_t prompt_hash = 0;
  int flights = 0; // steps in flight that name it
  int priority = 0;
  time_us tpot = 0, due = 0;
  int cached = 0;
  draft_proposer proposer{0};
  std::vector<token> draft; // of the step in flight
  bool running = false, opened = false, cancelled = false, seen = false;
  bool refilling = false; // of its blocks some are hollow

  [[nodiscard]] std::size_t expected() const { return tokens.size() + pending; }
  [[nodiscard]] std::size_t remaining() const { return expected() - computed; }
};

struct step_batcher::forming {
  planned_step step;
  std::vector<std::pair<sequence*, int>> chosen; // with the run's length, less drafts
  int tokens = 0;
  std::size_t block_ids = 0, open_tokens = 0;
  time_us tightest_tpot = std::numeric_limits<time_us>::max();
  bool starved = false; // a running sequence found no block

  [[nodiscard]] bool has(const sequence& s) const {
    return std::any_of(chosen.begin(), chosen.end(), [&](const auto& c) { return c.first == &s; });
  }
};

step_batcher::step_batcher(batcher_options options)
    : options_(std::move(options)),
      pool_(options_.blocks, options_.prefix_cache,
            options_.inherited ? options_.inherited->key : options_.key) {
  if (options_.inherited && options_.max_step_tokens >= kv_block_tokens)
    pool_.inherit(options_.inherited->blocks);
  if (options_.draft_tokens > 0) // drafts go on from tokens that are known
    options_.steps_ahead = 0;
}

step_batcher::~step_batcher() = default;

submit_verdict step_batcher::submit(sequence_request r, time_us now) {
  const std::size_t most = r.tokens.size() + static_cast<std::size_t>(std::max(r.max_new, 0));
  if (r.tokens.empty() || r.max_new < 1 || most > static_cast<std::size_t>(options_.max_sequence) ||
      blocks_for(most) > options_.blocks)
    return submit_verdict::too_long;
  // Those that the next step may take in do not wait: a burst fills the places that are free.
  const auto limit = static_cast<std::size_t>(options_.max_running + options_.max_waiting) *
                     (r.must_take ? std::size_t{8} : 1);
  if (sequences_.size() >= limit)
    return submit_verdict::full;

  auto s = std::make_unique<sequence>();
  s->id = r.id;
  s->given = r.tokens.size();
  s->proposer = draft_proposer(static_cast<std::size_t>(std::max(options_.draft_tokens, 0)));
  s->most = most;
  s->priority = std::clamp(r.priority, -most_priority, most_priority);
  s->tokens = std::move(r.tokens);
  s->prompt_hash = chain_hash(options_.key, prefix_index::root, s->tokens);
  s->tpot = r.tpot_us > 0 ? r.tpot_us : options_.default_tpot_us;
  // One order for all: the deadline of the first token, lower classes later by a fixed time. What
  // arrives much later cannot be ahead of it, so nothing starves.
  const time_us ttft =
      std::min(r.ttft_us > 0 ? r.ttft_us : options_.default_ttft_us, options_.class_us);
  const auto classes = static_cast<time_us>(s->priority + most_priority);
  s->order = {now + ttft + classes * options_.class_us, s->id};
  waiting_.emplace(s->order, s.get());
  sequences_.emplace(s->id, std::move(s));
  return submit_verdict::accepted;
}

std::optional<planned_step> step_batcher::next(time_us now) {
  if (flights_.size() >= static_cast<std::size_t>(slots() + options_.steps_ahead))
    return std::nullopt;
  if (auto refill = form_refill(now))
    return refill;
  forming f;
  f.step.number = steps_ + 1;
  add_decodes(f);
  add_prefills(f);
  if (f.chosen.empty()) // what it took in may be inherited, and is filled first
    return form_refill(now);
  commit(f, now);
  return std::move(f.step);
}

/// Steps that may run at once, and one more that waits while each still has two sequences: a stage
/// that is done early finds it there, for the weights' read of a step more.
int step_batcher::slots() const {
  const int stages = std::max(options_.steps_in_flight, 1);
  const bool waits = options_.even_chunk > 0 && stages > 1 &&
                     sequences_.size() >= 2 * static_cast<std::size_t>(stages + 1);
  return waits ? stages + 1 : stages;
}

/// No more of its tokens are to be chosen than may be, and the one to come is not its last. Chunks
/// of its prompt may follow one another: every stage takes steps in order.
bool step_batcher::may_join(const sequence& s) const {
  return !s.cancelled && !s.refilling &&
         s.pending <= static_cast<std::size_t>(options_.steps_ahead) && s.expected() < s.most;
}

void step_batcher::add_decodes(forming& f) {
  std::vector<sequence*> ready;
  for (const auto& [order, s] : running_)
    if (s->remaining() == 1 && may_join(*s))
      ready.push_back(s);
  // What is ready is spread over the free slots, so that every stage has work.
  const auto most_slots = static_cast<std::size_t>(slots());
  const std::size_t free_slots = most_slots > flights_.size() ? most_slots - flights_.size() : 1;
  const std::size_t share = (ready.size() + free_slots - 1) / free_slots;
  std::stable_sort(ready.begin(), ready.end(),
                   [](const sequence* a, const sequence* b) { return a->due < b->due; });
  std::size_t taken = 0;
  // A draft takes a place, and leaves a place to each sequence that is here.
  const auto places = static_cast<std::size_t>(options_.max_running);
  std::size_t spare = places - std::min(places, sequences_.size());
  for (sequence* s : ready) {
    if (taken == share || f.tokens >= options_.max_step_tokens)
      break;
    if (!s->running) // preempted for one before it
      continue;
    if (f.starved && s->flights > 0) // it comes home, so that there is one to preempt
      continue;
    if (!extend(*s, f)) {
      f.starved = true;
      continue;
    }
    // Those after it in this step have a token each.
    const auto needed = static_cast<std::size_t>(f.tokens) + share - taken;
    const auto budget = static_cast<std::size_t>(options_.max_step_tokens);
    auto drafted = draft(*s, std::min(spare, budget - std::min(budget, needed)));
    spare -= drafted.size();
    if (!take(*s, 1, std::move(drafted), f))
      break;
    f.tightest_tpot = std::min(f.tightest_tpot, s->tpot);
    ++taken;
  }
}

void step_batcher::add_prefills(forming& f) {
  const int budget = prefill_budget(f);
  int used = 0;
  std::vector<sequence*> inside;
  for (const auto& [order, s] : running_)
    if (s->remaining() > 1 && may_join(*s))
      inside.push_back(s);
  // Both in their common order. Those that wait are looked at one by one: they may be many, and few
  // find room.
  auto next_inside = inside.begin();
  auto next_waiting = waiting_.begin();
  bool full = f.starved;
  while (used < budget) {
    const bool waits = !full && next_waiting != waiting_.end();
    if (!waits && next_inside == inside.end())
      break;
    const bool takes_in =
        waits && (next_inside == inside.end() || next_waiting->first < (*next_inside)->order);
    sequence* s = takes_in ? (next_waiting++)->second : *next_inside++;
    if (takes_in) {
      const auto outcome = start(*s, f);
      // Nobody overtakes the first one that finds no room: it would starve.
      full = outcome == started::no_room;
      if (outcome != started::yes || s->refilling)
        continue;
    } else if (!s->running || f.has(*s)) { // preempted for one before it; taken in again
      continue;
    }
    const int run = static_cast<int>(
        std::min<std::size_t>(s->remaining(), static_cast<std::size_t>(budget - used)));
    if (!take(*s, run, {}, f))
      break;
    used += run;
  }
}

int step_batcher::prefill_budget(const forming& f) const {
  int budget = options_.max_step_tokens - f.tokens;
  if (const int chunk = options_.even_chunk; chunk > 0 && options_.steps_in_flight > 1) {
    const int most = std::max(chunk, 3 * static_cast<int>(sequences_.size()) / slots());
    const int whole = (f.tokens + most) / chunk * chunk - f.tokens;
    budget = std::min(budget, whole < chunk / 2 ? whole + chunk : whole);
  }
  if (f.chosen.empty() || us_per_token_ <= 0)
    return budget;
  const double tokens = 0.8 * static_cast<double>(f.tightest_tpot) / us_per_token_;
  if (tokens >= static_cast<double>(budget + f.tokens))
    return budget;
  return std::min(budget, std::max(static_cast<int>(tokens) - f.tokens, least_chunk));
}

const step_batcher::sequence* step_batcher::fork_leader(const sequence& s) const {
  const auto same = forks_.find(s.prompt_hash);
  if (same == forks_.end() || s.tokens.size() != s.given)
    return nullptr;
  for (const sequence* other : same->second)
    if (other->given == s.given && !other->cancelled &&
        std::equal(s.tokens.begin(), s.tokens.end(), other->tokens.begin()))
      return other;
  return nullptr;
}

std::size_t step_batcher::first_hollow(const sequence& s) const {
  return static_cast<std::size_t>(
      std::ranges::find_if(s.blocks, [&](block_id b) { return pool_.hollow(b); }) -
      s.blocks.begin());
}

/// The next run of hollow blocks of each sequence that has some, within a step's budget. What one
/// run writes no other of the same step reads.
std::optional<planned_step> step_batcher::form_refill(time_us now) {
  if (refilling_ == 0)
    return std::nullopt;
  planned_step step;
  step.number = steps_ + 1;
  step.refill = true;
  auto budget = static_cast<std::size_t>(options_.max_step_tokens) / kv_block_tokens;
  std::size_t block_ids = 0;
  for (const auto& [order, s] : running_) {
    if (!s->refilling || budget == 0 || block_ids > step_block_ids)
      continue;
    const auto first = first_hollow(*s);
    if (first == s->blocks.size()) { // another one's run was the same blocks
      s->refilling = false;
      --refilling_;
      continue;
    }
    const auto before = std::span(s->blocks).first(first);
    if (std::ranges::any_of(before, [&](block_id b) { return pool_.written_by(b) == step.number; }))
      continue;
    planned_entry e;
    e.sequence = s->id;
    e.position = static_cast<std::int32_t>(first * kv_block_tokens);
    auto end = first;
    for (; end < s->blocks.size() && pool_.hollow(s->blocks[end]) && budget > 0; ++end, --budget)
      pool_.filled(s->blocks[end], step.number);
    e.tokens = static_cast<std::int32_t>((end - first) * kv_block_tokens);
    e.blocks.assign(s->blocks.begin(), s->blocks.begin() + static_cast<std::ptrdiff_t>(end));
    for (const block_id b : e.blocks)
      pool_.named(b, step.number);
    block_ids += end;
    for (std::size_t i = first * kv_block_tokens; i < end * kv_block_tokens; ++i)
      step.ids.push_back(s->tokens[i]);
    step.entries.push_back(std::move(e));
    if (first_hollow(*s) == s->blocks.size()) {
      s->refilling = false;
      --refilling_;
    }
  }
  if (step.entries.empty())
    return std::nullopt;
  flight out;
  out.number = step.number;
  out.left = now;
  steps_ = step.number;
  flights_.push_back(std::move(out));
  return step;
}

step_batcher::started step_batcher::start(sequence& s, forming& f) {
  const std::size_t known = s.tokens.size();
  const sequence* leader = fork_leader(s);
  if (leader != nullptr && leader->computed + 1 < known)
    return started::held; // the same prompt is being computed: this one will share it
  std::vector<block_id> shared;
  std::vector<std::uint64_t> hashes;
  std::size_t cached = 0;
  if (leader != nullptr) {
    cached = known - 1;
    shared.assign(leader->blocks.begin(),
                  leader->blocks.begin() + static_cast<std::ptrdiff_t>(cached / kv_block_tokens));
    for (const block_id b : shared)
      pool_.add_holder(b);
    hashes.assign(leader->hashes.begin(),
                  leader->hashes.begin() +
                      static_cast<std::ptrdiff_t>(std::min(shared.size(), leader->hashes.size())));
  } else {
    auto found = pool_.match(s.tokens, (known - 1) / kv_block_tokens);
    shared = std::move(found.blocks);
    hashes = std::move(found.hashes);
    cached = shared.size() * kv_block_tokens;
  }
  const block_id source = leader != nullptr && cached % kv_block_tokens != 0
                              ? leader->blocks[cached / kv_block_tokens]
                              : 0;
  const bool copies = leader != nullptr && cached % kv_block_tokens != 0;
  if (copies)
    pool_.add_holder(source); // making room may send the leader away
  const std::size_t needed = blocks_for(known) - shared.size();
  const bool fits =
      running_.size() < static_cast<std::size_t>(options_.max_running)
          ? make_room(s, f, needed + (running_.empty() ? 0 : running_.size() / 4 + 1), true)
          : false;
  if (!fits) {
    for (const block_id b : shared)
      pool_.drop_holder(b);
    if (copies)
      pool_.drop_holder(source);
    return started::no_room;
  }
  s.blocks = std::move(shared);
  s.hashes = std::move(hashes);
  s.computed = cached;
  while (s.blocks.size() < blocks_for(known))
    s.blocks.push_back(*pool_.allocate());
  if (copies) {
    const block_id copy = s.blocks[cached / kv_block_tokens];
    pool_.named(source, f.step.number);
    pool_.named(copy, f.step.number);
    pool_.drop_holder(source);
    f.step.copies.emplace_back(source, copy);
  }
  if (!s.seen) { // a preempted one's own blocks are no hits
    s.seen = true;
    s.cached = static_cast<int>(cached);
    counters_.prefix_queries += known;
    counters_.prefix_hits += cached;
    counters_.prompt_tokens += known;
  }
  waiting_.erase(s.order);
  running_.emplace(s.order, &s);
  s.running = true;
  s.refilling = first_hollow(s) < s.blocks.size();
  refilling_ += s.refilling ? 1 : 0;
  forks_[s.prompt_hash].push_back(&s);
  return started::yes;
}

bool step_batcher::make_room(const sequence& s, const forming& f, std::size_t blocks,
                             bool by_class) {
  while (pool_.available() < blocks) {
    sequence* victim = nullptr;
    for (auto it = running_.rbegin(); it != running_.rend() && it->first > s.order; ++it) {
      sequence* v = it->second;
      if (v->flights == 0 && !f.has(*v) && (!by_class || v->priority > s.priority)) {
        victim = v;
        break;
      }
    }
    if (victim == nullptr)
      return false;
    stop_running(*victim);
    waiting_.emplace(victim->order, victim);
    ++counters_.preemptions;
  }
  return true;
}

bool step_batcher::extend(sequence& s, const forming& f) {
  if (blocks_for(s.computed + 1) <= s.blocks.size())
    return true;
  if (!make_room(s, f, 1, false))
    return false;
  s.blocks.push_back(*pool_.allocate());
  return true;
}

/// What is computed along with the next token, in blocks that nobody else needs now.
std::vector<token> step_batcher::draft(sequence& s, std::size_t room) {
  auto out = s.proposer.propose(s.tokens, std::min(room, s.most - s.tokens.size() - 1));
  while (blocks_for(s.tokens.size() + out.size()) > s.blocks.size()) {
    if (pool_.available() <= running_.size()) {
      out.resize(s.blocks.size() * kv_block_tokens - s.tokens.size());
      break;
    }
    s.blocks.push_back(*pool_.allocate());
  }
  return out;
}

bool step_batcher::take(sequence& s, int tokens, std::vector<token> draft, forming& f) {
  const std::size_t known = s.computed + static_cast<std::size_t>(tokens);
  const std::size_t end = known + draft.size();
  const std::size_t tables = blocks_for(end);
  planned_entry e;
  e.sequence = s.id;
  e.position = static_cast<std::int32_t>(s.computed);
  e.tokens = static_cast<std::int32_t>(end - s.computed);
  e.logits = known == s.expected() ? 1 + static_cast<std::int32_t>(draft.size()) : 0;
  e.opens = e.logits > 0 && !s.opened;
  const std::size_t opens = e.opens ? s.tokens.size() : 0;
  if (!f.chosen.empty() && (f.block_ids + tables > step_block_ids ||
                            (opens > 0 && f.open_tokens + opens > step_open_tokens)))
    return false;
  e.blocks.assign(s.blocks.begin(), s.blocks.begin() + static_cast<std::ptrdiff_t>(tables));
  for (const block_id b : e.blocks)
    pool_.named(b, f.step.number);
  for (std::size_t i = s.computed; i < known; ++i)
    f.step.ids.push_back(i < s.tokens.size() ? s.tokens[i] : unknown_token);
  f.step.ids.insert(f.step.ids.end(), draft.begin(), draft.end());
  s.draft = std::move(draft);
  f.block_ids += tables;
  f.open_tokens += opens;
  f.tokens += e.tokens;
  f.chosen.emplace_back(&s, tokens);
  f.step.entries.push_back(std::move(e));
  return true;
}

void step_batcher::commit(forming& f, time_us now) {
  flight out;
  out.number = f.step.number;
  out.left = now;
  out.tokens = f.tokens;
  for (std::size_t i = 0; i < f.chosen.size(); ++i) {
    auto& [s, tokens] = f.chosen[i];
    ++s->flights;
    s->computed += static_cast<std::size_t>(tokens);
    s->pending += f.step.entries[i].logits > 0 ? 1 : 0;
    s->opened = s->opened || f.step.entries[i].opens;
    out.entries.emplace_back(s->id, f.step.entries[i].logits > 0);
    publish(*s, out.number);
  }
  steps_ = f.step.number;
  ++counters_.steps;
  counters_.step_tokens += static_cast<std::uint64_t>(f.tokens);
  ++counters_.step_sizes[static_cast<std::size_t>(
      std::ranges::lower_bound(step_size_bounds, f.tokens) - step_size_bounds.begin())];
  flights_.push_back(std::move(out));
}

/// Full blocks of known tokens become findable. Steps run in order on every stage, so a later step
/// may read what one in flight will write.
void step_batcher::publish(sequence& s, std::uint64_t step) {
  const std::size_t there = std::min(s.computed, s.tokens.size());
  while ((s.hashes.size() + 1) * kv_block_tokens <= there) {
    const std::size_t b = s.hashes.size();
    s.hashes.push_back(pool_.publish(
        b == 0 ? prefix_index::root : s.hashes.back(),
        std::span(s.tokens).subspan(b * kv_block_tokens, kv_block_tokens), s.blocks[b], step));
  }
}

step_outcome step_batcher::complete(std::uint64_t step, std::span<const sampled_id> tokens,
                                    time_us now) {
  step_outcome out;
  if (flights_.empty() || flights_.front().number != step) {
    out.error = "step " + std::to_string(step) + " returned, but it is not the oldest in flight";
    return out;
  }
  const flight done = std::move(flights_.front());
  flights_.pop_front();
  pool_.returned(step);
  std::unordered_map<sequence_id, std::span<const sampled_id>> by_sequence;
  for (auto rest = tokens; !rest.empty();) {
    const auto run = std::ranges::find_if(
        rest, [&](const sampled_id& t) { return t.sequence != rest[0].sequence; });
    const auto length = static_cast<std::size_t>(run - rest.begin());
    by_sequence.emplace(rest[0].sequence, rest.first(length));
    rest = rest.subspan(length);
  }
  std::size_t fitting = 0;
  bool missing = false;
  for (const auto& [id, wants] : done.entries) {
    const auto it = sequences_.find(id);
    if (!wants || it == sequences_.end()) // it ended in the step before
      continue;
    const auto got = by_sequence[id];
    missing = missing || !continues(it->second->draft, got);
    fitting += got.size();
  }
  if (missing || fitting != tokens.size()) {
    out.error = "step " + std::to_string(step) + " returned other tokens than were asked for";
    return out;
  }
  for (const auto& [id, wants] : done.entries) {
    const auto it = sequences_.find(id);
    if (it == sequences_.end())
      continue;
    sequence& s = *it->second;
    --s.flights;
    s.pending -= wants ? 1 : 0;
    const bool ends = wants && by_sequence[id].back().ends;
    if (s.cancelled) {
      if (ends || s.flights == 0) {
        out.cancelled.push_back(id);
        erase(s);
      }
      continue;
    }
    if (!wants)
      continue;
    accept(s, by_sequence[id], now);
    if (ends) {
      out.ended.push_back(id);
      erase(s);
    } else if (s.tokens.size() >= s.most) {
      out.error = "sequence " + std::to_string(id) + " did not end at its length";
      return out;
    } else {
      publish(s, step);
    }
  }
  if (done.tokens >= least_chunk && now > done.left) {
    const double us = static_cast<double>(now - done.left) / done.tokens;
    us_per_token_ = us_per_token_ <= 0 ? us : 0.8 * us_per_token_ + 0.2 * us;
  }
  // What was formed ahead begins now.
  const auto running = static_cast<std::size_t>(std::max(options_.steps_in_flight, 1));
  if (options_.steps_ahead > 0 && flights_.size() >= running)
    flights_[running - 1].left = now;
  return out;
}

/// Takes in what was sampled. Blocks of drafts that did not stand go back, and what is in them is
/// written over.
void step_batcher::accept(sequence& s, std::span<const sampled_id> tokens, time_us now) {
  for (const auto& t : tokens)
    s.tokens.push_back(t.id);
  s.due = now + s.tpot;
  counters_.generated_tokens += tokens.size();
  if (s.draft.empty())
    return;
  const std::size_t stood = tokens.size() - 1;
  s.computed += stood;
  s.proposer.verified(s.draft.size(), stood);
  counters_.draft_tokens += s.draft.size();
  counters_.accepted_tokens += stood;
  s.draft.clear();
  while (s.blocks.size() > blocks_for(s.tokens.size())) {
    pool_.drop_holder(s.blocks.back());
    s.blocks.pop_back();
  }
}

bool step_batcher::cancel(sequence_id id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end())
    return false;
  if (it->second->flights > 0) {
    it->second->cancelled = true;
    return false;
  }
  erase(*it->second);
  return true;
}

/// From running to nowhere: its blocks go, the last ones first, so that of a chain in the prefix
/// cache the end is evicted before the beginning.
void step_batcher::stop_running(sequence& s) {
  running_.erase(s.order);
  s.running = false;
  for (auto b = s.blocks.rbegin(); b != s.blocks.rend(); ++b)
    pool_.drop_holder(*b);
  refilling_ -= s.refilling ? 1 : 0;
  s.refilling = false;
  s.blocks.clear();
  s.hashes.clear();
  s.computed = 0;
  const auto same = forks_.find(s.prompt_hash);
  std::erase(same->second, &s);
  if (same->second.empty())
    forks_.erase(same);
}

void step_batcher::erase(sequence& s) {
  if (s.running)
    stop_running(s);
  else
    waiting_.erase(s.order);
  sequences_.erase(s.id);
}

bool step_batcher::knows(sequence_id sequence) const {
  return sequences_.contains(sequence);
}

int step_batcher::cached_tokens(sequence_id sequence) const {
  const auto it = sequences_.find(sequence);
  return it == sequences_.end() ? 0 : it->second->cached;
}

batcher_stats step_batcher::stats() const {
  batcher_stats s = counters_;
  s.running = static_cast<std::uint32_t>(running_.size());
  s.waiting = static_cast<std::uint32_t>(waiting_.size());
  s.in_flight = static_cast<std::uint32_t>(flights_.size());
  s.blocks = pool_.blocks();
  s.free_blocks = pool_.available();
  return s;
}

kept_blocks step_batcher::kept() const {
  return {options_.inherited ? options_.inherited->key : options_.key, pool_.kept()};
}

std::map<sequence_id, std::vector<block_id>> step_batcher::tables() const {
  std::map<sequence_id, std::vector<block_id>> out;
  for (const auto& [order, s] : running_)
    out.emplace(s->id, s->blocks);
  return out;
}

std::uint64_t step_batcher::oldest_in_flight() const {
  return flights_.empty() ? 0 : flights_.front().number;
}

} // namespace hexgen::scheduler
