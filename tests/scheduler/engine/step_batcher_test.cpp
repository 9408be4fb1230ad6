#include "scheduler/engine/step_batcher.hpp"
#include "tests/catch.hpp"
#include "tests/fake_kv.hpp"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

using namespace hexgen::scheduler;
using hexgen::tests::fake_hash;
using hexgen::tests::fake_kv;
using hexgen::tests::fake_token;

namespace {

constexpr int vocab = 5000;

batcher_options small(std::uint32_t blocks = 64, int in_flight = 1) {
  batcher_options o;
  o.blocks = blocks;
  o.steps_in_flight = in_flight;
  o.max_step_tokens = 64;
  o.max_sequence = 512;
  o.key = {5, 6};
  return o;
}

sequence_request request(sequence_id id, int prompt, int max_new, token first = -1) {
  sequence_request r;
  r.id = id;
  r.tokens.resize(static_cast<std::size_t>(prompt));
  std::iota(r.tokens.begin(), r.tokens.end(), first >= 0 ? first : static_cast<token>(id) * 1000);
  r.max_new = max_new;
  return r;
}

/// What a sequence generates when it is alone.
std::vector<token> alone(std::vector<token> tokens, int count, int stop_every = vocab + 1,
                         int words = vocab) {
  std::vector<token> out;
  while (static_cast<int>(out.size()) < count && (out.empty() || out.back() % stop_every != 0)) {
    out.push_back(fake_token(fake_hash(tokens), 0, words));
    tokens.push_back(out.back());
  }
  return out;
}

/// A batcher with a fake stage behind it: runs steps in order and keeps what came out.
struct machine {
  explicit machine(const batcher_options& o) : batcher(o), kv(o.blocks), options(o) {}

  submit_verdict submit(const sequence_request& r) {
    limits[r.id] = r.max_new;
    return batcher.submit(r, now);
  }
  /// Forms a step and computes it; its result stays in flight.
  bool form() {
    auto s = batcher.next(now);
    if (!s)
      return false;
    std::vector<sampled_id> results;
    for (const auto& [from, to] : s->copies)
      kv.copy(from, to);
    std::set<block_id> written;
    std::size_t at = 0;
    for (const auto& e : s->entries) {
      if (e.logits > 0) // chunks of a prompt may follow one another
        REQUIRE(sampling[e.sequence]++ <= options.steps_ahead);
      const auto ids = std::span(s->ids).subspan(at, static_cast<std::size_t>(e.tokens));
      at += ids.size();
      if (ids.back() == unknown_token) {
        REQUIRE(options.steps_ahead > 0);
        ids.back() = out.at(e.sequence).back();
      }
      for (int p = e.position; p < e.position + e.tokens; p += 1)
        written.insert(e.blocks.at(static_cast<std::size_t>(p / kv_block_tokens)));
      const auto hash = kv.run(e.position, ids, e.blocks);
      REQUIRE(hash);
      for (int drafts = e.logits - 1, i = 0; i < e.logits && !over.contains(e.sequence); ++i) {
        const auto before = ids.first(ids.size() - static_cast<std::size_t>(drafts - i));
        sampled_id t{e.sequence, fake_token(*kv.run(e.position, before, e.blocks), 0, words),
                     false};
        out[e.sequence].push_back(t.id);
        t.ends = static_cast<int>(out[e.sequence].size()) == limits.at(e.sequence) ||
                 t.id % stop_every == 0;
        if (t.ends)
          over.insert(e.sequence);
        results.push_back(t);
        if (i == drafts || t.ends || t.id != ids[before.size()])
          break;
      }
      // As the device does it: the whole run, drafts that do not stand too.
      REQUIRE(kv.run(e.position, ids, e.blocks));
    }
    CHECK(at == s->ids.size());
    CHECK(at <= static_cast<std::size_t>(options.max_step_tokens));
    steps.push_back(*s);
    flying.emplace_back(std::move(*s), std::move(results));
    return true;
  }
  step_outcome land() {
    auto [s, results] = std::move(flying.front());
    flying.pop_front();
    for (const auto& e : s.entries)
      sampling[e.sequence] -= e.logits > 0 ? 1 : 0;
    now += 1000;
    auto o = batcher.complete(s.number, results, now);
    REQUIRE(o.error.empty());
    for (const auto id : o.ended)
      ended.push_back(id);
    return o;
  }
  void run_all(int most = 100000) {
    for (int i = 0; i < most; ++i) {
      while (form()) {
      }
      if (flying.empty())
        return;
      land();
    }
    FAIL("it does not come to an end");
  }

  int words = vocab;
  step_batcher batcher;
  fake_kv kv;
  batcher_options options;
  time_us now = 1'000'000;
  std::map<sequence_id, int> limits;
  std::map<sequence_id, std::vector<token>> out;
  int stop_every = vocab + 1;          // tokens that it divides are stop tokens
  std::set<sequence_id> over;          // ended, whether the batcher knows or not
  std::map<sequence_id, int> sampling; // steps in flight that choose a token for it
  std::deque<std::pair<planned_step, std::vector<sampled_id>>> flying;
  std::vector<planned_step> steps;
  std::vector<sequence_id> ended;
};

} // namespace

TEST_CASE("a long prompt is computed in chunks of the budget and sampled after the last") {
  machine m(small());
  REQUIRE(m.submit(request(1, 150, 3)) == submit_verdict::accepted);
  m.run_all();
  REQUIRE(m.steps.size() == 5);
  CHECK(m.steps[0].entries[0].tokens == 64);
  CHECK(m.steps[0].entries[0].logits == 0);
  CHECK_FALSE(m.steps[0].entries[0].opens);
  CHECK(m.steps[2].entries[0].tokens == 22);
  CHECK(m.steps[2].entries[0].opens);
  CHECK(m.steps[3].entries[0].tokens == 1);
  CHECK_FALSE(m.steps[3].entries[0].opens);
  CHECK(m.out[1] == alone(request(1, 150, 3).tokens, 3));
  CHECK(m.batcher.stats().free_blocks == 64);
}

TEST_CASE("decodes and prefill chunks share a step") {
  machine m(small());
  m.submit(request(1, 10, 20));
  m.form();
  m.land();
  m.submit(request(2, 100, 2));
  m.form();
  const auto& s = m.steps.back();
  REQUIRE(s.entries.size() == 2);
  CHECK(s.entries[0].sequence == 1);
  CHECK(s.entries[0].tokens == 1);
  CHECK(s.entries[1].tokens == 63);
  m.run_all();
  CHECK(m.out[2] == alone(request(2, 100, 2).tokens, 2));
}

TEST_CASE("ready sequences are spread over as many steps in flight as there are stages") {
  machine m(small(64, 3));
  for (sequence_id id = 1; id <= 6; ++id)
    m.submit(request(id, 4, 10));
  for (int i = 0; i < 4; ++i) {
    while (m.form()) {
    }
    while (!m.flying.empty())
      m.land();
  }
  while (m.form()) {
  }
  REQUIRE(m.flying.size() == 3);
  for (const auto& f : m.flying)
    CHECK(f.first.entries.size() == 2);
}

TEST_CASE("a prompt's chunks follow one another through the stages") {
  machine m(small(64, 3));
  m.submit(request(1, 150, 2));
  REQUIRE(m.form());
  REQUIRE(m.form());
  REQUIRE(m.form());
  CHECK(m.steps[0].entries.at(0).logits == 0);
  CHECK(m.steps[1].entries.at(0).position == 64);
  CHECK(m.steps[2].entries.at(0).logits == 1);
  CHECK_FALSE(m.form());
  m.land();
  CHECK_FALSE(m.form()); // its token is not known yet
  m.run_all();
  CHECK(m.out[1] == alone(request(1, 150, 2).tokens, 2));
}

TEST_CASE("a prompt cancelled between its chunks goes with the last that is in flight") {
  machine m(small(64, 3));
  m.submit(request(1, 150, 2));
  REQUIRE(m.form());
  REQUIRE(m.form());
  CHECK_FALSE(m.batcher.cancel(1));
  CHECK_FALSE(m.form());
  CHECK(m.land().cancelled.empty());
  CHECK(m.land().cancelled == std::vector<sequence_id>{1});
  CHECK(m.batcher.stats().free_blocks == 64);
}

TEST_CASE("steps of a pipeline take as many prompt tokens as there are sequences for") {
  auto o = small(64, 2);
  o.even_chunk = 8;
  machine m(o);
  m.submit(request(1, 30, 2));
  REQUIRE(m.form());
  CHECK(m.steps[0].ids.size() == 8);
  for (sequence_id id = 2; id <= 5; ++id)
    m.submit(request(id, 30, 2));
  REQUIRE(m.form());
  CHECK(m.steps[1].ids.size() == 8); // 15 are allowed, in whole chunks
  CHECK_FALSE(m.form());
  m.submit(request(6, 30, 2));
  REQUIRE(m.form()); // two sequences for each of three steps: one may wait
  CHECK_FALSE(m.form());
  for (sequence_id id = 7; id <= 18; ++id)
    m.submit(request(id, 30, 2));
  m.land();
  REQUIRE(m.form());
  CHECK(m.steps[3].ids.size() == 16); // 18 are allowed
  o.steps_in_flight = 1;              // nothing waits for anything
  machine alone_on_it(o);
  alone_on_it.submit(request(1, 30, 2));
  REQUIRE(alone_on_it.form());
  CHECK(alone_on_it.steps[0].ids.size() == 30);
}

TEST_CASE("decodes and prompt tokens fill whole chunks together") {
  auto o = small(64, 2);
  o.even_chunk = 8;
  machine m(o);
  for (sequence_id id = 1; id <= 3; ++id)
    m.submit(request(id, 1, 9));
  REQUIRE(m.form());
  m.submit(request(4, 60, 2));
  m.land();
  REQUIRE(m.form()); // two of three decodes, since another step may follow
  CHECK(m.steps[1].entries.size() == 3);
  CHECK(m.steps[1].ids.size() == 8);
  REQUIRE(m.form());
  CHECK(m.steps[2].entries.size() == 2);
  CHECK(m.steps[2].ids.size() == 8);
}

TEST_CASE("a lower class waits and an earlier deadline goes first") {
  auto o = small();
  o.max_running = 1;
  machine m(o);
  m.submit(request(1, 4, 1));
  m.form();
  auto low = request(2, 4, 1), plain = request(3, 4, 1), urgent = request(4, 4, 1);
  low.priority = 1;
  urgent.ttft_us = 50'000;
  m.submit(low);
  m.submit(plain);
  m.submit(urgent);
  m.land();
  m.run_all();
  CHECK(m.ended == std::vector<sequence_id>{1, 4, 3, 2});
}

TEST_CASE("a low class does not starve behind an endless stream of a higher one") {
  auto o = small();
  o.max_running = 2;
  o.class_us = 200'000;
  o.default_ttft_us = 10'000;
  machine m(o);
  auto low = request(1, 8, 4);
  low.priority = 3;
  m.submit(low);
  sequence_id next = 2;
  for (int i = 0; i < 3000 && std::ranges::find(m.ended, 1U) == m.ended.end(); ++i) {
    while (m.batcher.stats().waiting < 4)
      m.submit(request(next++, 8, 4));
    m.form();
    m.land();
  }
  CHECK(std::ranges::find(m.ended, 1U) != m.ended.end());
  CHECK(m.out[1] == alone(low.tokens, 4));
}

TEST_CASE("the youngest sequence makes room and is recomputed to the same tokens") {
  auto o = small(8);
  o.prefix_cache = false;
  machine m(o);
  for (sequence_id id = 1; id <= 3; ++id)
    REQUIRE(m.submit(request(id, 20, 60)) == submit_verdict::accepted);
  m.run_all();
  CHECK(m.batcher.stats().preemptions > 0);
  CHECK(m.ended.front() == 1);
  for (sequence_id id = 1; id <= 3; ++id)
    CHECK(m.out[id] == alone(request(id, 20, 60).tokens, 60));
  CHECK(m.batcher.stats().free_blocks == 8);
}

TEST_CASE("a second prompt with the same beginning skips what is already there") {
  machine m(small());
  m.submit(request(1, 100, 2, 7));
  m.run_all();
  auto second = request(2, 100, 2, 7);
  second.tokens.push_back(4321);
  m.submit(second);
  m.run_all();
  CHECK(m.out[2] == alone(second.tokens, 2));
  CHECK(m.batcher.stats().prefix_hits == 96);
  const auto& first_step = m.steps[m.steps.size() - 2];
  CHECK(first_step.entries[0].position == 96);
  CHECK(first_step.entries[0].tokens == 5);
}

TEST_CASE("equal prompts are computed once and share blocks until they differ") {
  for (const int length : {40, 48, 49}) {
    auto o = small();
    o.prefix_cache = false;
    machine m(o);
    for (sequence_id id = 1; id <= 4; ++id)
      m.submit(request(id, length, 5, 7));
    m.form();
    CHECK(m.steps[0].entries.size() == 1); // the others wait for it
    m.land();
    m.form();
    REQUIRE(m.steps[1].entries.size() == 4);
    CHECK(m.steps[1].ids.size() == 4);
    CHECK(m.steps[1].copies.size() == ((length - 1) % 16 != 0 ? 3U : 0U));
    m.run_all();
    for (sequence_id id = 1; id <= 4; ++id)
      CHECK(m.out[id] == alone(request(1, length, 5, 7).tokens, 5));
    CHECK(m.batcher.stats().free_blocks == 64);
  }
}

TEST_CASE("a cancelled sequence gives its blocks back when its step has returned") {
  machine m(small());
  m.submit(request(1, 20, 9));
  m.submit(request(2, 20, 9));
  CHECK(m.batcher.cancel(2));
  CHECK_FALSE(m.batcher.cancel(77));
  m.form();
  CHECK_FALSE(m.batcher.cancel(1));
  CHECK(m.batcher.stats().free_blocks < 64);
  const auto o = m.land();
  CHECK(o.cancelled == std::vector<sequence_id>{1});
  CHECK(m.batcher.stats().free_blocks == 64);
  CHECK_FALSE(m.form());
}

TEST_CASE("a full queue and sequences that can never fit are refused") {
  auto o = small(4);
  o.max_running = 1;
  o.max_waiting = 1;
  machine m(o);
  CHECK(m.submit(request(1, 60, 5)) == submit_verdict::too_long);
  CHECK(m.submit(request(1, 10, 0)) == submit_verdict::too_long);
  CHECK(m.submit(request(1, 10, 503)) == submit_verdict::too_long);
  CHECK(m.submit(request(1, 10, 5)) == submit_verdict::accepted);
  CHECK(m.submit(request(2, 10, 5)) == submit_verdict::accepted);
  CHECK(m.submit(request(3, 10, 5)) == submit_verdict::full);
  auto moved = request(3, 10, 5);
  moved.must_take = true;
  CHECK(m.submit(moved) == submit_verdict::accepted);
}

TEST_CASE("results that do not fit the step are errors") {
  step_batcher b(small());
  b.submit(request(1, 10, 5), 0);
  REQUIRE(b.next(0));
  const std::vector<sampled_id> right{{1, 5, false}}, wrong{{2, 5, false}};
  CHECK_FALSE(b.complete(2, right, 1).error.empty());
  CHECK_FALSE(b.complete(1, wrong, 1).error.empty());
  step_batcher c(small());
  c.submit(request(1, 10, 1), 0);
  REQUIRE(c.next(0));
  CHECK_FALSE(c.complete(1, right, 1).error.empty()); // it had to end
}

TEST_CASE("a step is formed ahead of the tokens that it goes on from") {
  auto o = small();
  o.steps_ahead = 1;
  machine m(o);
  m.submit(request(1, 20, 3));
  REQUIRE(m.form());
  REQUIRE(m.form()); // while the first is in flight
  CHECK_FALSE(m.form());
  CHECK(m.steps[1].ids == std::vector<token>{m.out[1][0]}); // the machine filled it in
  CHECK(m.steps[1].entries[0].position == 20);
  m.land();
  REQUIRE(m.form());
  m.land();
  CHECK_FALSE(m.form()); // its length is known: nothing follows the third token
  m.land();
  CHECK(m.out[1] == alone(request(1, 20, 3).tokens, 3));
  CHECK(m.ended == std::vector<sequence_id>{1});
  CHECK(m.batcher.stats().free_blocks == 64);
}

TEST_CASE("a sequence that ends while a step formed ahead names it gets nothing more") {
  auto o = small();
  o.steps_ahead = 1;
  machine m(o);
  m.stop_every = 1; // the first token is a stop token
  m.submit(request(1, 20, 9));
  REQUIRE(m.form());
  REQUIRE(m.form());
  CHECK(m.land().ended == std::vector<sequence_id>{1});
  CHECK_FALSE(m.batcher.knows(1));
  CHECK(m.land().ended.empty());
  CHECK(m.out[1].size() == 1);
  CHECK(m.batcher.stats().free_blocks == 64);
  CHECK(m.batcher.stats().generated_tokens == 1);
}

TEST_CASE("a sequence cancelled in two steps goes with the second") {
  auto o = small();
  o.steps_ahead = 1;
  machine m(o);
  m.submit(request(1, 20, 9));
  REQUIRE(m.form());
  REQUIRE(m.form());
  CHECK_FALSE(m.batcher.cancel(1));
  CHECK(m.land().cancelled.empty());
  CHECK_FALSE(m.form());
  CHECK(m.land().cancelled == std::vector<sequence_id>{1});
  CHECK(m.batcher.stats().free_blocks == 64);
}

TEST_CASE("whatever is batched with it, a sequence's tokens are those it gets alone") {
  std::uint64_t preemptions = 0, hits = 0, copies = 0, drafts = 0, accepted = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&](int low, int high) {
      return low + static_cast<int>(random() % static_cast<std::uint64_t>(high - low + 1));
    };
    batcher_options o = small(static_cast<std::uint32_t>(pick(12, 60)), pick(1, 4));
    o.max_step_tokens = pick(3, 80);
    o.max_sequence = 150;
    o.max_running = pick(2, 20);
    o.prefix_cache = pick(0, 3) > 0;
    o.even_chunk = std::max(0, pick(-20, 20));
    o.draft_tokens = std::max(0, pick(-4, 6));
    if (o.steps_in_flight == 1)
      o.steps_ahead = pick(0, 1);
    machine m(o);
    m.words = o.draft_tokens > 0 ? 2 : vocab; // of two words every pair comes again
    m.stop_every = pick(0, 1) == 0 && o.draft_tokens == 0 ? 13 : vocab + 1;
    std::map<sequence_id, sequence_request> wanted;
    std::set<sequence_id> cancelled;
    sequence_id next = 1;
    for (int turn = 0; turn < 400; ++turn) {
      if (turn < 250 && pick(0, 2) == 0) {
        auto r = request(next++, pick(1, 100), pick(1, 40), pick(0, 2)); // alike on purpose
        r.priority = pick(0, 1);
        if (m.submit(r) == submit_verdict::accepted)
          wanted.emplace(r.id, r);
      }
      if (pick(0, 1) == 0)
        m.form();
      else if (!m.flying.empty())
        m.land();
      if (pick(0, 30) == 0 && !wanted.empty()) {
        const auto id =
            std::next(wanted.begin(), pick(0, static_cast<int>(wanted.size()) - 1))->first;
        if (m.batcher.knows(id)) {
          m.batcher.cancel(id);
          cancelled.insert(id);
        }
      }
    }
    m.run_all();
    INFO("seed " << seed);
    for (const auto& [id, r] : wanted)
      if (!cancelled.contains(id))
        REQUIRE(m.out[id] == alone(r.tokens, r.max_new, m.stop_every, m.words));
    const auto s = m.batcher.stats();
    REQUIRE(s.running + s.waiting + s.in_flight == 0);
    REQUIRE(s.free_blocks == o.blocks);
    preemptions += s.preemptions;
    hits += s.prefix_hits;
    drafts += s.draft_tokens;
    accepted += s.accepted_tokens;
    for (const auto& step : m.steps)
      copies += step.copies.size();
  }
  CHECK(preemptions > 300); // the seeds did reach what they are for
  CHECK(hits > 1000);
  CHECK(copies > 100);
  CHECK(accepted > 300);
  CHECK(drafts > accepted + 1000);
}

TEST_CASE("drafts that stand come with their step, and the blocks of those that do not go back") {
  auto o = small();
  o.draft_tokens = 20;
  step_batcher b(o);
  sequence_request r;
  r.id = 1;
  r.tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2};
  r.max_new = 100;
  b.submit(r, 0);
  REQUIRE(b.next(0)->entries[0].logits == 1); // a prompt has no draft
  const std::vector<sampled_id> first{{1, 3, false}};
  REQUIRE(b.complete(1, first, 1).error.empty());
  auto s = b.next(1);
  REQUIRE(s);
  CHECK(s->entries[0].position == 14);
  CHECK(s->entries[0].tokens == 21);
  CHECK(s->entries[0].logits == 21);
  CHECK(s->ids ==
        std::vector<token>{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(b.tables().at(1).size() == 3);
  const std::vector<sampled_id> stood{{1, 4, false}, {1, 5, false}, {1, 40, false}};
  REQUIRE(b.complete(2, stood, 2).error.empty());
  CHECK(b.tables().at(1).size() == 2); // 18 tokens are known
  CHECK(b.stats().draft_tokens == 20);
  CHECK(b.stats().accepted_tokens == 2);
  s = b.next(2);
  CHECK(s->entries[0].position == 17);
  CHECK(s->ids == std::vector<token>{40});
}

TEST_CASE("drafts take no place that a sequence could have") {
  auto o = small();
  o.draft_tokens = 8;
  o.max_running = 4;
  step_batcher b(o);
  for (sequence_id id = 1; id <= 3; ++id) {
    sequence_request r;
    r.id = id;
    r.tokens = {7, 7, 7, static_cast<token>(id), 7, 7};
    r.max_new = 50;
    b.submit(r, 0);
  }
  b.next(0);
  const std::vector<sampled_id> sevens{{1, 7, false}, {2, 7, false}, {3, 7, false}};
  REQUIRE(b.complete(1, sevens, 1).error.empty());
  std::int32_t rows = 0;
  const auto second = b.next(1);
  REQUIRE(second);
  for (const auto& e : second->entries)
    rows += e.logits;
  CHECK(rows == 4); // three sequences and one draft
}

TEST_CASE("a token after one that ended its draft is an error") {
  for (const std::vector<sampled_id>& wrong :
       {std::vector<sampled_id>{{1, 8, false}, {1, 7, false}},
        std::vector<sampled_id>{{1, 7, true}, {1, 7, false}}, std::vector<sampled_id>{}}) {
    auto o = small();
    o.draft_tokens = 2;
    step_batcher b(o);
    sequence_request r;
    r.id = 1;
    r.tokens = {7, 7, 7};
    r.max_new = 50;
    b.submit(r, 0);
    b.next(0);
    const std::vector<sampled_id> first{{1, 7, false}};
    REQUIRE(b.complete(1, first, 1).error.empty());
    REQUIRE(b.next(1)->entries[0].logits == 3);
    CHECK_FALSE(b.complete(2, wrong, 2).error.empty());
  }
}

namespace {

/// A replica of two stages, one after another: the first has always been there, the second is lost
/// with every life. Steps in flight are lost too.
struct lives {
  explicit lives(const batcher_options& o) : options(o), first(o.blocks), second(o.blocks) {
    begin();
  }
  void begin() {
    batcher = std::make_unique<step_batcher>(options);
    for (const auto& [id, tokens] : known)
      if (const int left = most - static_cast<int>(tokens.size()) + given.at(id); left > 0)
        submit(id + 1000 * ++life, tokens, left, id);
  }
  void end() {
    options.inherited = std::make_shared<kept_blocks>(batcher->kept());
    content.clear();
    for (const auto& b : options.inherited->blocks)
      content[b.block] = b.tokens;
    flying.clear();
    second = fake_kv(options.blocks);
    begin();
  }
  void submit(sequence_id sequence, const std::vector<token>& tokens, int left, sequence_id id) {
    sequence_request r;
    r.id = sequence;
    r.tokens = tokens;
    r.max_new = left;
    REQUIRE(batcher->submit(r, now) == submit_verdict::accepted);
    answers[sequence] = id;
  }
  void land() {
    const auto s = std::move(flying.front());
    flying.pop_front();
    std::vector<sampled_id> results;
    std::size_t at = 0;
    for (const auto& [from, to] : s.copies) {
      first.copy(from, to);
      second.copy(from, to);
    }
    for (const auto& e : s.entries) {
      if (s.refill) {
        ++refills;
        std::vector<token> ids;
        for (int p = e.position; p < e.position + e.tokens; p += kv_block_tokens) {
          const auto& tokens =
              content.at(e.blocks.at(static_cast<std::size_t>(p / kv_block_tokens)));
          ids.insert(ids.end(), tokens.begin(), tokens.end());
        }
        const auto given = std::span(s.ids).subspan(at, ids.size());
        at += ids.size();
        CHECK(std::ranges::equal(given, ids));
        REQUIRE(second.run(e.position, ids, e.blocks));
        continue;
      }
      const auto ids = std::span(s.ids).subspan(at, static_cast<std::size_t>(e.tokens));
      at += ids.size();
      computed += ids.size();
      const auto hash = first.run(e.position, ids, e.blocks);
      REQUIRE(hash);
      REQUIRE(second.run(e.position, ids, e.blocks) == hash);
      if (e.logits == 0)
        continue;
      const auto id = answers.at(e.sequence);
      auto& tokens = known.at(id);
      tokens.push_back(fake_token(*hash, 0, vocab));
      results.push_back(
          {e.sequence, tokens.back(), static_cast<int>(tokens.size()) == given.at(id) + most});
    }
    now += 1000;
    REQUIRE(batcher->complete(s.number, results, now).error.empty());
  }
  bool form() {
    auto s = batcher->next(now);
    if (s)
      flying.push_back(std::move(*s));
    return s.has_value();
  }

  static constexpr int most = 30;
  batcher_options options;
  std::unique_ptr<step_batcher> batcher;
  fake_kv first, second;
  std::map<block_id, std::array<token, kv_block_tokens>> content;
  std::map<sequence_id, std::vector<token>> known; // prompt and answer so far
  std::map<sequence_id, int> given;
  std::map<sequence_id, sequence_id> answers; // whose answer a life's sequence is
  std::deque<planned_step> flying;
  time_us now = 1'000'000;
  std::uint64_t life = 0;
  std::size_t refills = 0, computed = 0;
};

} // namespace

TEST_CASE("a replica goes on with the KV that another left, once the new stage was filled") {
  std::size_t refills = 0;
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    auto o = small(static_cast<std::uint32_t>(draw(12, 40)), draw(1, 3));
    o.max_step_tokens = draw(16, 64);
    lives l(o);
    for (sequence_id id = 1; id <= 5; ++id) {
      auto& tokens = l.known[id];
      tokens.resize(static_cast<std::size_t>(draw(1, 100)));
      std::iota(tokens.begin(), tokens.end(), draw(0, 1) * 1000); // beginnings are shared
      l.given[id] = static_cast<int>(tokens.size());
      l.submit(id, tokens, lives::most, id);
    }
    for (int i = 0; i < 4; ++i) {
      for (int n = draw(1, 60); n > 0; --n)
        if (draw(0, 1) == 0 || !l.form())
          if (!l.flying.empty())
            l.land();
      l.end();
    }
    while (l.form() || !l.flying.empty())
      if (l.flying.size() > 2 || draw(0, 1) == 0)
        l.land();
    INFO("seed " << seed);
    for (const auto& [id, tokens] : l.known) {
      std::vector<token> expected(tokens.begin(), tokens.begin() + l.given[id]);
      for (int i = 0; i < lives::most; ++i)
        expected.push_back(fake_token(fake_hash(expected), 0, vocab));
      CHECK(tokens == expected);
    }
    CHECK(l.batcher->stats().free_blocks == o.blocks);
    refills += l.refills;
  }
  CHECK(refills > 500);
}

TEST_CASE("of a long context the stages that were there compute nothing again") {
  lives l(small(64, 3));
  l.known[1] = request(1, 480, 1).tokens;
  l.given[1] = 480;
  l.submit(1, l.known[1], lives::most, 1);
  while (l.known[1].size() < 482) {
    while (l.form()) {
    }
    l.land();
  }
  l.computed = 0;
  l.end();
  while (l.known[1].size() < 483) {
    while (l.form()) {
    }
    l.land();
  }
  CHECK(l.refills >= 7); // 64 tokens a step
  CHECK(l.computed <= 2 * kv_block_tokens);
}
