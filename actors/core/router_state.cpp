#include "actors/core/router_state.hpp"

#include "actors/core/answer_stream.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace hexgen::actors {
namespace {

constexpr time_us most_backoff_us = 2'000'000;
// Most answers end long before max_tokens: what counts as load of one until it is known better.
constexpr std::uint64_t expected_output_tokens = 256;

} // namespace

struct router_state::place {
  wire::route route;
  std::set<std::uint64_t> requests;
  std::uint64_t outstanding_tokens = 0, held_tokens = 0;
  time_us avoid_until = 0, backoff = 0;
  bool full = false; // why it is avoided
};

struct router_state::ticket {
  std::vector<std::uint64_t> requests; // open
  bool started = false;                // an event was delivered
};

struct router_state::sequence {
  sequence(std::uint64_t request, const generation_request& r, compute::sampling_params params,
           const std::shared_ptr<const compute::tokenizer>& tokens)
      : log(request, r.prompt, std::move(params)),
        answer(tokens, r.stop, r.skip_special_tokens, r.params.min_tokens), priority(r.priority),
        ttft_ms(r.ttft_deadline_ms), tpot_ms(r.tpot_deadline_ms) {
    answer_stream::output told; // in its earlier life
    for (const auto id : r.emitted) {
      compute::sampled_token t;
      t.id = id;
      answer.push(t, told);
    }
    log.restore(r.emitted);
  }

  journal log;
  answer_stream answer;
  ticket_id owner = 0;
  int choice = 0;
  std::vector<compute::token_id> untold; // taken, but in no event yet
  int priority = 0;
  double ttft_ms = 0, tpot_ms = 0;
  std::optional<place_key> at;
  std::uint64_t outstanding = 0, held = 0; // what `at` is charged with
  time_us wait_until = 0;                  // 0: served, or not yet missed
  int tries = 0;                           // since the last token
  int cached_tokens = 0;
  time_us arrived = 0, sent = 0; // sent: to the replica that it is at
  double queued_s = 0;

  [[nodiscard]] std::uint64_t expected_tokens() const {
    const auto left = static_cast<std::uint64_t>(std::max<std::int64_t>(
        log.params().max_tokens - static_cast<std::int64_t>(log.emitted().size()), 1));
    return std::min(left, expected_output_tokens);
  }
};

router_state::router_state(router_options options)
    : options_(options), policy_(options.routing), next_request_(options.first_request) {}

router_state::~router_state() = default;

void router_state::set_tokenizer(std::shared_ptr<const compute::tokenizer> tokens) {
  tokens_ = std::move(tokens);
}

router_effects router_state::submit(ticket_id id, generation_request r, time_us now) {
  router_effects out;
  const auto refuse = [&](int status, const char* code, std::string message) {
    ++stats_.refused;
    out.push_back(refuse_submit{id, {status, code, std::move(message), retry_after_s()}});
    return std::move(out);
  };
  if (r.prompt.empty() || r.choices < 1 || r.params.max_tokens < 1 ||
      (!r.emitted.empty() &&
       (r.choices > 1 || static_cast<std::size_t>(r.params.max_tokens) <= r.emitted.size())))
    return refuse(400, "invalid_request", "an empty prompt, no choices or nothing to generate");
  // While one generation makes way for the next, requests wait instead; an answer that has begun
  // waits as long as any.
  const bool begun = !r.emitted.empty();
  if (const auto why = not_ready(); !why.empty() && !(tokens_ && (table_.switching || begun)))
    return refuse(503, "unavailable", why);
  const auto most = table_.settings.max_sequence;
  if (most > 0 && r.prompt.size() >= most)
    return refuse(400, "context_length_exceeded",
                  "the prompt has " + std::to_string(r.prompt.size()) +
                      " tokens; prompt and output have at most " + std::to_string(most));
  if (!begun && sequences_.size() + static_cast<std::size_t>(r.choices) > most_sequences())
    return refuse(429, "overloaded", "too many requests are open here");
  if (!begun &&
      std::any_of(places_.begin(), places_.end(),
                  [&](const auto& p) { return reachable(p.second) && p.second.full; }) &&
      std::none_of(places_.begin(), places_.end(),
                   [&](const auto& p) { return usable(p.second, now); }))
    return refuse(429, "overloaded", "every replica's queue is full");

  auto& t = *tickets_.emplace(id, std::make_unique<ticket>()).first->second;
  t.started = begun;
  for (int choice = 0; choice < r.choices; ++choice) {
    auto params = r.params;
    params.choice = static_cast<std::uint32_t>(choice);
    const std::uint64_t request = next_request_++;
    auto s = std::make_unique<sequence>(request, r, std::move(params), tokens_);
    s->owner = id;
    s->choice = choice;
    s->arrived = now;
    t.requests.push_back(request);
    auto& placed = *sequences_.emplace(request, std::move(s)).first->second;
    if (!dispatch(placed, now, out)) {
      start_wait(placed, now);
      if (placed.ttft_ms > 0) // after its deadline an answer helps nobody
        placed.wait_until = std::min(
            placed.wait_until, now + static_cast<time_us>(std::min(placed.ttft_ms, 1e9) * 1e3));
      waiting_.insert(request);
    }
  }
  return out;
}

router_effects router_state::cancel(ticket_id id, time_us) {
  router_effects out;
  const auto it = tickets_.find(id);
  if (it == tickets_.end())
    return out;
  ++stats_.cancelled;
  const auto requests = it->second->requests;
  for (const auto request : requests)
    close(request, true, out);
  return out;
}

void router_state::coordinator_changed(time_us now) {
  has_table_ = false;
  adopt_until_ = now + options_.adopt_us;
}

router_effects router_state::routing_table(wire::routing_table table, time_us now) {
  router_effects out;
  if (has_table_ && table.epoch < table_.epoch)
    return out;
  has_table_ = true;
  table_ = std::move(table);
  for (const auto& r : table_.routes) {
    const auto [it, is_new] = places_.try_emplace({r.replica, r.generation});
    if (is_new)
      policy_.forget(r.replica); // a new generation's caches are empty
    const auto old = std::exchange(it->second.route, r);
    if (!is_new && (old.node != r.node || old.incarnation != r.incarnation))
      move_all_from(it->first, false, now, out); // a number used again: nothing of it is there
  }
  drop_unnamed(now, out);
  retry_waiting(now, out);
  return out;
}

/// Generations that the table does not name are over; but a coordinator that was restarted may not
/// have heard of all that serve yet.
void router_state::drop_unnamed(time_us now, router_effects& out) {
  if (now < adopt_until_)
    return;
  adopt_until_ = 0;
  std::set<place_key> named;
  for (const auto& r : table_.routes)
    named.emplace(r.replica, r.generation);
  std::vector<place_key> gone;
  for (const auto& [key, p] : places_)
    if (!named.contains(key))
      gone.push_back(key);
  for (const auto& key : gone)
    places_.at(key).route.draining = true; // nothing new goes there while its sequences move
  for (const auto& key : gone)
    move_all_from(key, true, now, out);
  for (const auto& key : gone)
    places_.erase(key);
}

router_effects router_state::node_up(const std::string& node, std::uint64_t incarnation,
                                     time_us now) {
  router_effects out;
  // A stranger under a name in use takes nothing from its owner: each incarnation stands by itself.
  up_.emplace(node, incarnation);
  retry_waiting(now, out);
  return out;
}

router_effects router_state::node_down(const std::string& node, std::uint64_t incarnation,
                                       time_us now) {
  router_effects out;
  up_.erase({node, incarnation});
  std::vector<place_key> lost;
  for (const auto& [key, p] : places_)
    if (p.route.node == node && p.route.incarnation == incarnation)
      lost.push_back(key);
  for (const auto& key : lost)
    move_all_from(key, false, now, out);
  return out;
}

router_effects router_state::token_chunk(const wire::token_chunk& m, time_us now) {
  router_effects out;
  const auto it = sequences_.find(m.request);
  if (it == sequences_.end()) {
    ++stats_.stale_chunks;
    return out;
  }
  sequence& s = *it->second;
  const auto verdict = s.at ? s.log.take(m) : journal::verdict::stale;
  if (verdict == journal::verdict::stale) {
    ++stats_.stale_chunks;
    return out;
  }
  if (verdict == journal::verdict::gap) {
    ++stats_.gaps;
    move(s, true, now, out);
    return out;
  }
  s.tries = 0;
  s.wait_until = 0;
  if (s.log.emitted().size() == m.tokens.size()) { // the first tokens of all
    s.cached_tokens =
        static_cast<int>(std::min<std::size_t>(m.cached_tokens, s.log.prompt().size()));
    // Two waits, each by one clock; what a replica says of its own is at most what passed here.
    s.queued_s =
        1e-6 * static_cast<double>(s.sent - s.arrived + std::min(m.queued_us, now - s.sent));
  }
  place& p = places_.at(*s.at);
  p.backoff = 0;
  // Its prompt is done, and these tokens of its output.
  const std::uint64_t left = std::min(s.outstanding, s.expected_tokens());
  p.outstanding_tokens -= s.outstanding - left;
  s.outstanding = left;
  deliver_tokens(s, m, out);
  return out;
}

void router_state::deliver_tokens(sequence& s, const wire::token_chunk& m, router_effects& out) {
  answer_stream::output o;
  bool ended = false;
  for (const auto& t : m.tokens) {
    auto token = t.token;
    if (!token.ends && t.index + 1 >= s.log.params().max_tokens)
      token.ends = token.ends_by_length = true;
    s.answer.push(token, o);
    s.untold.push_back(token.id);
    ended = t.token.ends;
    if (!o.finish_reason.empty())
      break;
  }
  if (o.text.empty() && o.tokens.empty() && o.finish_reason.empty())
    return;
  deliver_event d;
  d.ticket = s.owner;
  d.event.choice = s.choice;
  d.event.text = std::move(o.text);
  d.event.tokens = std::move(o.tokens);
  d.event.taken = std::exchange(s.untold, {});
  d.event.finish_reason = o.finish_reason;
  d.event.prompt_tokens = static_cast<int>(s.log.prompt().size());
  d.event.cached_tokens = s.cached_tokens;
  d.event.completion_tokens = s.answer.completion_tokens();
  d.event.queued_s = s.queued_s;
  tickets_.at(s.owner)->started = true;
  out.push_back(std::move(d));
  if (!o.finish_reason.empty()) {
    ++stats_.finished;
    close(s.log.request(), !ended, out);
  }
}

router_effects router_state::request_failed(const wire::request_failed& m, time_us now) {
  router_effects out;
  const auto it = sequences_.find(m.request);
  if (it == sequences_.end() || !it->second->at || it->second->log.attempt() != m.attempt) {
    ++stats_.stale_chunks;
    return out;
  }
  sequence& s = *it->second;
  place& p = places_.at(*s.at);
  if (m.retry) {
    p.full = false;
    p.backoff = std::clamp(p.backoff * 2, options_.backoff_us, most_backoff_us);
    p.avoid_until = now + p.backoff;
    move(s, false, now, out);
    return out;
  }
  if (m.status != 429) {
    fail(s, m.status == 0 ? 500 : static_cast<int>(m.status), m.message, out);
    return out;
  }
  // Full there. It was not taken, so it keeps its attempt number and its place behind newcomers.
  p.full = true;
  p.avoid_until = now + options_.backoff_us;
  leave(s);
  if (dispatch(s, now, out))
    return out;
  if (!tickets_.at(s.owner)->started) {
    fail(s, 429, m.message, out);
    return out;
  }
  start_wait(s, now);
  waiting_.insert(s.log.request());
  return out;
}

router_effects router_state::tick(time_us now) {
  router_effects out;
  if (adopt_until_ != 0 && has_table_)
    drop_unnamed(now, out);
  retry_waiting(now, out);
  const auto still = waiting_;
  for (const auto request : still) {
    const auto it = sequences_.find(request);
    if (it != sequences_.end() && now >= it->second->wait_until)
      fail(*it->second, 503, "no replica could go on with the request in time", out);
  }
  return out;
}

bool router_state::reachable(const place& p) const {
  return !p.route.draining && up_.contains({p.route.node, p.route.incarnation});
}

bool router_state::usable(const place& p, time_us now) const {
  return reachable(p) && now >= p.avoid_until;
}

bool router_state::dispatch(sequence& s, time_us now, router_effects& out) {
  std::vector<scheduler::routing_candidate> candidates;
  std::vector<place_key> keys;
  for (const auto& [key, p] : places_) {
    if (!usable(p, now))
      continue;
    candidates.push_back({key.first, p.route.capacity, p.outstanding_tokens, p.held_tokens,
                          std::uint64_t{p.route.kv_blocks} * compute::block_tokens});
    keys.push_back(key);
  }
  const std::uint64_t expected = s.log.emitted().size() + s.expected_tokens();
  const auto chosen = policy_.pick(candidates, s.log.prompt(), expected);
  if (!chosen)
    return false;
  const place_key key = keys[*chosen];
  place& p = places_.at(key);
  s.at = key;
  s.sent = now;
  s.outstanding = s.held = s.log.prompt().size() + expected;
  p.outstanding_tokens += s.outstanding;
  p.held_tokens += s.held;
  p.requests.insert(s.log.request());
  waiting_.erase(s.log.request());
  send_submit send{p.route.node, p.route.incarnation, s.log.resume(key.first, key.second)};
  send.message.priority = s.priority;
  send.message.ttft_deadline_ms = s.ttft_ms;
  send.message.tpot_deadline_ms = s.tpot_ms;
  out.push_back(std::move(send));
  return true;
}

void router_state::leave(sequence& s) {
  if (!s.at)
    return;
  place& p = places_.at(*s.at);
  p.outstanding_tokens -= s.outstanding;
  p.held_tokens -= s.held;
  p.requests.erase(s.log.request());
  s.at.reset();
}

void router_state::tell_cancel(const sequence& s, router_effects& out) const {
  if (!s.at)
    return;
  const auto& r = places_.at(*s.at).route;
  if (up_.contains({r.node, r.incarnation}))
    out.push_back(send_cancel{
        r.node, r.incarnation, {s.log.request(), s.log.attempt(), r.replica, r.generation}});
}

void router_state::move(sequence& s, bool tell_old, time_us now, router_effects& out) {
  if (tell_old)
    tell_cancel(s, out);
  leave(s);
  s.log.next_attempt();
  ++stats_.moved;
  if (++s.tries > options_.attempts_without_progress) {
    fail(s, 503, "the request was moved too often without a new token", out);
    return;
  }
  start_wait(s, now);
  if (!dispatch(s, now, out))
    waiting_.insert(s.log.request());
}

void router_state::start_wait(sequence& s, time_us now) const {
  if (s.wait_until == 0)
    s.wait_until = now + (s.log.emitted().empty() ? options_.wait_us : options_.begun_wait_us);
}

void router_state::move_all_from(const place_key& from, bool tell_old, time_us now,
                                 router_effects& out) {
  const auto requests = places_.at(from).requests;
  for (const auto request : requests)
    if (const auto it = sequences_.find(request); it != sequences_.end())
      move(*it->second, tell_old, now, out);
}

void router_state::retry_waiting(time_us now, router_effects& out) {
  const auto requests = waiting_;
  for (const auto request : requests)
    if (!dispatch(*sequences_.at(request), now, out))
      return;
}

void router_state::fail(sequence& s, int status, const std::string& message, router_effects& out) {
  ++stats_.failed;
  if (!tickets_.at(s.owner)->started) {
    refuse_ticket(s.owner,
                  {status, status == 429 ? "overloaded" : "failed", message, retry_after_s()}, out);
    return;
  }
  deliver_event d;
  d.ticket = s.owner;
  d.event.choice = s.choice;
  d.event.error_status = status;
  d.event.error_message = message;
  d.event.prompt_tokens = static_cast<int>(s.log.prompt().size());
  d.event.completion_tokens = s.answer.completion_tokens();
  out.push_back(std::move(d));
  close(s.log.request(), true, out);
}

void router_state::refuse_ticket(ticket_id id, submit_refused why, router_effects& out) {
  const auto requests = tickets_.at(id)->requests;
  for (const auto request : requests)
    close(request, true, out);
  ++stats_.refused;
  out.push_back(refuse_submit{id, std::move(why)});
}

/// The sequence is over; its ticket too when it was the last one.
void router_state::close(std::uint64_t request, bool tell_replica, router_effects& out) {
  const auto it = sequences_.find(request);
  sequence& s = *it->second;
  if (tell_replica)
    tell_cancel(s, out);
  leave(s);
  waiting_.erase(request);
  const auto t = tickets_.find(s.owner);
  std::erase(t->second->requests, request);
  if (t->second->requests.empty())
    tickets_.erase(t);
  sequences_.erase(it);
}

std::string router_state::not_ready() const {
  if (!tokens_)
    return "no model is known yet";
  // While a restarted coordinator has not heard of all replicas, those known before go on.
  if (table_.routes.empty() && places_.empty())
    return table_.missing.empty() ? "no replica serves yet" : table_.missing;
  return {};
}

int router_state::retry_after_s() const {
  double tokens = 0, capacity = 0;
  for (const auto& [key, p] : places_) {
    tokens += static_cast<double>(p.outstanding_tokens);
    capacity += p.route.capacity;
  }
  const double seconds = capacity > 0 ? tokens / capacity : 1;
  return static_cast<int>(std::clamp(std::ceil(seconds), 1.0, 30.0));
}

/// What every replica may run and let wait. More would wait here, where nobody bounds it.
std::size_t router_state::most_sequences() const {
  const auto replicas = std::count_if(places_.begin(), places_.end(), [&](const auto& one) {
    return up_.contains({one.second.route.node, one.second.route.incarnation});
  });
  return static_cast<std::size_t>(std::max<std::ptrdiff_t>(replicas, 1)) * // one is on its way
         (std::size_t{table_.settings.running_limit()} + table_.settings.max_queued);
}

const wire::routing_table& router_state::table() const {
  return table_;
}

router_stats router_state::stats() const {
  router_stats s = stats_;
  s.sequences = sequences_.size();
  s.waiting = waiting_.size();
  return s;
}

} // namespace hexgen::actors
