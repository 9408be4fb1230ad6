#include "actors/core/replica_state.hpp"
#include "tests/catch.hpp"

#include <numeric>

using namespace hexgen::actors;

namespace {

replica_options small() {
  replica_options o;
  o.replica = 2;
  o.generation = 5;
  o.kv_blocks = 16;
  o.vocab = 100;
  o.max_sequence = 128;
  o.max_step_tokens = 32;
  return o;
}

wire::submit request(std::uint64_t number, int prompt = 10, int max_tokens = 4) {
  wire::submit m;
  m.request = number;
  m.replica = 2;
  m.generation = 5;
  m.prompt.resize(static_cast<std::size_t>(prompt));
  std::iota(m.prompt.begin(), m.prompt.end(), static_cast<int>(number) % 7);
  m.params.max_tokens = max_tokens;
  return m;
}

template <class T>
std::vector<T> only(const replica_effects& effects) {
  std::vector<T> out;
  for (const auto& e : effects)
    if (const auto* t = std::get_if<T>(&e))
      out.push_back(*t);
  return out;
}

/// The result of a step: token 50 + index for every sampled entry.
struct last_stage {
  std::map<std::uint64_t, int> index;
  std::map<std::uint64_t, int> most;
  wire::step_result run(const wire::step_message& m) {
    wire::step_result r;
    r.replica = m.replica;
    r.generation = m.generation;
    r.step = m.step;
    for (const auto& o : m.opens) {
      index[o.sequence] = static_cast<int>(o.emitted.size());
      most[o.sequence] = o.params.max_tokens;
    }
    for (const auto& e : m.work.entries) {
      if (e.logits == 0)
        continue;
      wire::sampled s;
      s.sequence = e.sequence;
      s.index = index.at(e.sequence)++;
      s.token.id = 50 + s.index % 50;
      s.token.ends = s.token.ends_by_length = s.index + 1 == most.at(e.sequence);
      r.tokens.push_back(s);
    }
    return r;
  }
};

} // namespace

TEST_CASE("a request becomes steps and its tokens go to its router") {
  replica_state r(small());
  last_stage stage;
  auto effects = r.submit(77, request(1), 0);
  std::vector<int> got;
  for (int i = 0; i < 10; ++i) {
    const auto steps = only<send_step>(effects);
    if (steps.empty())
      break;
    REQUIRE(steps.size() == 1);
    CHECK(steps[0].message.step == static_cast<std::uint64_t>(i) + 1);
    CHECK(steps[0].message.opens.size() == (i == 0 ? 1U : 0U));
    effects = r.step_result(stage.run(steps[0].message), 1000);
    for (const auto& c : only<send_chunks>(effects)) {
      CHECK(c.to == 77);
      REQUIRE(c.chunks.size() == 1);
      CHECK(c.chunks[0].request == 1);
      CHECK(c.chunks[0].index == static_cast<int>(got.size()));
      for (const auto& t : c.chunks[0].tokens)
        got.push_back(t.token.id);
    }
  }
  CHECK(got == std::vector<int>{50, 51, 52, 53});
  CHECK(r.idle());
  CHECK(r.last_step() == 4);
  CHECK(r.status().free_blocks == 16);
  // The sampler of the finished one is closed with the next step.
  const auto next = only<send_step>(r.submit(77, request(2), 2000));
  CHECK(next.at(0).message.closes.size() == 1);
}

TEST_CASE("a step's tokens go to each router in one message") {
  replica_state r(small());
  last_stage stage;
  auto steps = only<send_step>(r.submit(77, request(1), 0));
  for (std::uint64_t n = 2; n <= 5; ++n)
    r.submit(n < 5 ? 77 : 78, request(n, 6), 0);
  const auto second = only<send_step>(r.step_result(stage.run(steps.at(0).message), 1)).at(0);
  const auto chunks = only<send_chunks>(r.step_result(stage.run(second.message), 2));
  REQUIRE(chunks.size() == 2);
  CHECK(chunks[0].to == 77);
  CHECK(chunks[0].chunks.size() == 4);
  CHECK(chunks[1].to == 78);
  CHECK(chunks[1].chunks.size() == 1);
}

TEST_CASE("with a step formed ahead the same tokens come, and what follows an end is dropped") {
  auto o = small();
  o.steps_ahead = 1;
  replica_state r(o);
  last_stage stage;
  auto steps = only<send_step>(r.submit(77, request(1, 10, 9), 0));
  REQUIRE(steps.size() == 2); // the second before the first has returned
  CHECK(steps[1].message.ids == std::vector<int>{hexgen::compute::unknown_token});
  auto effects = r.step_result(stage.run(steps[0].message), 1000);
  CHECK(only<send_chunks>(effects).size() == 1);
  const auto third = only<send_step>(effects).at(0);
  auto last = stage.run(steps[1].message);
  last.tokens.at(0).token.ends = true; // a stop token
  effects = r.step_result(last, 2000);
  CHECK(only<send_chunks>(effects).at(0).chunks.at(0).tokens.at(0).token.ends);
  CHECK(only<send_step>(effects).empty());
  CHECK(r.idle());
  r.drain(2500);
  auto nothing = stage.run(third.message);
  nothing.tokens.clear();
  effects = r.step_result(nothing, 3000);
  CHECK(only<send_chunks>(effects).empty());
  CHECK(only<replica_broken>(effects).empty());
  CHECK(only<replica_drained>(effects).size() == 1); // not before all steps are back
  CHECK(r.status().free_blocks == 16);
}

TEST_CASE("a resumed request goes on after its emitted tokens") {
  replica_state r(small());
  auto m = request(1);
  m.attempt = 3;
  m.emitted = {50, 51};
  const auto steps = only<send_step>(r.submit(77, m, 0));
  REQUIRE(steps.size() == 1);
  CHECK(steps[0].message.ids.size() == 12);
  CHECK(steps[0].message.opens.at(0).prompt.size() == 10);
  CHECK(steps[0].message.opens.at(0).emitted == std::vector<int>{50, 51});
  last_stage stage;
  const auto chunks = only<send_chunks>(r.step_result(stage.run(steps[0].message), 1));
  REQUIRE(chunks.size() == 1);
  CHECK(chunks[0].chunks.at(0).index == 2);
  CHECK(chunks[0].chunks.at(0).attempt == 3);
  (void)r.submit(77, request(2), 2);
  CHECK(r.status().resumed == 1); // the second one is new
}

TEST_CASE("a repeated submit is dropped and a higher attempt replaces the lower") {
  replica_state r(small());
  last_stage stage;
  const auto first = only<send_step>(r.submit(77, request(1), 0));
  CHECK(r.submit(77, request(1), 0).empty());
  auto again = request(1);
  again.attempt = 1;
  CHECK(only<send_failed>(r.submit(77, again, 0)).empty());
  const auto effects = r.step_result(stage.run(first.at(0).message), 1);
  CHECK(only<send_chunks>(effects).empty()); // of the attempt that was given up
  const auto second = only<send_step>(effects);
  REQUIRE(second.size() == 1);
  const auto chunks = only<send_chunks>(r.step_result(stage.run(second[0].message), 2));
  REQUIRE(chunks.size() == 1);
  CHECK(chunks[0].chunks.at(0).attempt == 1);
}

TEST_CASE("a cancelled request frees its blocks when its step returns") {
  replica_state r(small());
  last_stage stage;
  const auto step = only<send_step>(r.submit(77, request(1), 0)).at(0);
  wire::cancel c;
  c.request = 1;
  CHECK(r.cancel(77, c, 0).empty());
  CHECK(r.status().free_blocks < 16);
  const auto effects = r.step_result(stage.run(step.message), 1);
  CHECK(only<send_chunks>(effects).empty());
  CHECK(r.status().free_blocks == 16);
  CHECK(r.idle());
}

TEST_CASE("a router that is gone takes its requests with it and no others") {
  replica_state r(small());
  last_stage stage;
  auto step = only<send_step>(r.submit(77, request(1), 0)).at(0);
  CHECK(r.submit(78, request(1), 0).empty());
  r.router_lost(77, 0);
  const auto effects = r.step_result(stage.run(step.message), 1);
  CHECK(only<send_chunks>(effects).empty());
  step = only<send_step>(effects).at(0);
  const auto chunks = only<send_chunks>(r.step_result(stage.run(step.message), 2));
  REQUIRE(chunks.size() == 1);
  CHECK(chunks[0].to == 78);
}

TEST_CASE("a full queue refuses newcomers finally and lets moved requests in") {
  auto o = small();
  o.max_waiting = 1;
  o.max_running = 1;
  replica_state r(o);
  r.submit(77, request(1), 0);
  CHECK(r.submit(77, request(2), 0).empty());
  const auto refused = only<send_failed>(r.submit(77, request(3), 0));
  REQUIRE(refused.size() == 1);
  CHECK_FALSE(refused[0].message.retry);
  CHECK(refused[0].message.status == 429);
  auto moved = request(4);
  moved.attempt = 1;
  CHECK(r.submit(77, moved, 0).empty());
}

TEST_CASE("tokens tell how long their request waited for its first step") {
  auto o = small();
  o.max_running = 1;
  replica_state r(o);
  last_stage stage;
  auto effects = r.submit(77, request(1, 10, 1), 1000);
  r.submit(77, request(2, 10, 2), 1200);
  effects = r.step_result(stage.run(only<send_step>(effects).at(0).message), 1500);
  CHECK(only<send_chunks>(effects).at(0).chunks.at(0).queued_us == 0);
  effects = r.step_result(stage.run(only<send_step>(effects).at(0).message), 1900);
  CHECK(only<send_chunks>(effects).at(0).chunks.at(0).queued_us == 300);
  effects = r.step_result(stage.run(only<send_step>(effects).at(0).message), 2500);
  CHECK(only<send_chunks>(effects).at(0).chunks.at(0).queued_us == 300); // not since the last step
  const auto s = r.status();
  CHECK(s.steps == 3);
  CHECK(s.step_tokens == 21);
  CHECK(s.step_sizes.at(0) == 1); // up to 1,
  CHECK(s.step_sizes.at(2) == 2); // and up to 16 tokens
}

TEST_CASE("drafts go with their step, and those that stood come as one chunk") {
  auto o = small();
  o.draft_tokens = 3;
  replica_state r(o);
  auto m = request(1, 10, 20);
  m.prompt = {1, 2, 3, 4, 5, 1, 2};
  const auto token = [](int index, int id) {
    wire::sampled s;
    s.sequence = 1;
    s.index = index;
    s.token.id = id;
    return s;
  };
  const auto result = [](std::uint64_t step, std::vector<wire::sampled> tokens) {
    wire::step_result out;
    out.replica = 2;
    out.generation = 5;
    out.step = step;
    out.tokens = std::move(tokens);
    return out;
  };
  auto step = only<send_step>(r.submit(77, m, 0)).at(0).message;
  CHECK(step.drafts.empty());
  step = only<send_step>(r.step_result(result(1, {token(0, 3)}), 1)).at(0).message;
  CHECK(step.ids == std::vector<int>{3, 4, 5, 1});
  CHECK(step.drafts == std::vector<int>{4, 5, 1});
  CHECK(step.work.entries.at(0).logits == 4);
  const auto effects = r.step_result(result(2, {token(1, 4), token(2, 5), token(3, 9)}), 2);
  const auto chunks = only<send_chunks>(effects).at(0).chunks;
  REQUIRE(chunks.size() == 1);
  CHECK(chunks[0].index == 1);
  CHECK(chunks[0].tokens.size() == 3);
  step = only<send_step>(effects).at(0).message;
  CHECK(step.work.entries.at(0).position == 10);
  CHECK(step.ids == std::vector<int>{9});
  const auto broken = r.step_result(result(3, {token(5, 1)}), 3); // index 4 is next
  CHECK(only<replica_broken>(broken).size() == 1);
}

TEST_CASE("what cannot be served is refused with 400") {
  replica_state r(small());
  const auto status = [&](const wire::submit& m) {
    const auto failed = only<send_failed>(r.submit(77, m, 0));
    return failed.empty() ? 0U : failed[0].message.status;
  };
  CHECK(status(request(1, 128)) == 400);
  auto bad = request(2);
  bad.prompt[3] = 100;
  CHECK(status(bad) == 400);
  bad = request(3);
  bad.params.logit_bias = {{-1, 1.0F}};
  CHECK(status(bad) == 400);
  bad = request(4);
  bad.emitted = {1, 2, 3, 4};
  CHECK(status(bad) == 400); // nothing left to generate
  CHECK(r.idle());
}

TEST_CASE("a sequence that the last stage refuses ends alone") {
  replica_state r(small());
  last_stage stage;
  auto steps = only<send_step>(r.submit(77, request(1), 0));
  r.submit(78, request(2), 0);
  auto result = stage.run(steps.at(0).message);
  steps = only<send_step>(r.step_result(result, 1000));
  result = stage.run(steps.at(0).message);
  REQUIRE(result.tokens.size() == 2);
  auto& refused = result.tokens[0].sequence == 2 ? result.tokens[0] : result.tokens[1];
  refused.error = "the schema is too large";
  refused.token = {};
  const auto effects = r.step_result(result, 2000);
  const auto failed = only<send_failed>(effects);
  REQUIRE(failed.size() == 1);
  CHECK(failed[0].to == 78);
  CHECK(failed[0].message.request == 2);
  CHECK(failed[0].message.status == 400);
  CHECK_FALSE(failed[0].message.retry);
  CHECK(failed[0].message.message == "the schema is too large");
  CHECK(only<send_chunks>(effects).size() == 1);
  CHECK(only<replica_broken>(effects).empty());
  CHECK(only<send_step>(effects).at(0).message.closes.size() == 1);
}

TEST_CASE("the length of a sequence bounds its output") {
  replica_state r(small());
  const auto step = only<send_step>(r.submit(77, request(1, 30, 100000), 0)).at(0);
  CHECK(step.message.opens.at(0).params.max_tokens == 98);
}

TEST_CASE("draining refuses newcomers, finishes the others and says so once") {
  replica_state r(small());
  last_stage stage;
  auto steps = only<send_step>(r.submit(77, request(1), 0));
  CHECK(r.drain(0).empty());
  const auto refused = only<send_failed>(r.submit(77, request(2), 0));
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].message.retry);
  std::size_t drained = 0, tokens = 0;
  while (!steps.empty()) {
    const auto effects = r.step_result(stage.run(steps[0].message), 1);
    drained += only<replica_drained>(effects).size();
    tokens += only<send_chunks>(effects).size();
    steps = only<send_step>(effects);
  }
  CHECK(tokens == 4);
  CHECK(drained == 1);
  CHECK(r.tick(5).empty());
}

TEST_CASE("a failed or senseless step poisons the generation and moves its requests") {
  for (const int fault : {0, 1, 2, 3}) {
    replica_state r(small());
    last_stage stage;
    const auto step = only<send_step>(r.submit(77, request(1), 0)).at(0);
    auto result = stage.run(step.message);
    if (fault == 0)
      result.error = "device lost";
    else if (fault == 1)
      result.step = 2;
    else if (fault == 2)
      result.tokens[0].index = 7;
    else
      result.tokens.clear();
    const auto effects = r.step_result(result, 1);
    const auto failed = only<send_failed>(effects);
    REQUIRE(failed.size() == 1);
    CHECK(failed[0].message.retry);
    CHECK(only<replica_broken>(effects).size() == 1);
    CHECK(r.dead());
    CHECK(only<send_failed>(r.submit(77, request(2), 2)).at(0).message.retry);
    CHECK(r.step_result(result, 3).empty());
  }
}

TEST_CASE("results of another generation change nothing") {
  replica_state r(small());
  last_stage stage;
  const auto step = only<send_step>(r.submit(77, request(1), 0)).at(0);
  auto result = stage.run(step.message);
  result.generation = 4;
  CHECK(r.step_result(result, 1).empty());
  result.generation = 5;
  CHECK(only<send_chunks>(r.step_result(result, 1)).size() == 1);
}

TEST_CASE("an aborted generation hands every request back") {
  replica_state r(small());
  r.submit(77, request(1), 0);
  r.submit(78, request(2), 0);
  const auto failed = only<send_failed>(r.abort("stage 1 is gone", 1));
  REQUIRE(failed.size() == 2);
  CHECK(failed[0].message.retry);
  CHECK(r.abort("again", 2).empty());
}
