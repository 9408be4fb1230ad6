#include "actors/core/wire.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <random>

using namespace hexgen::actors;

namespace {

wire::submit sample_submit() {
  wire::submit m;
  m.request = 7;
  m.attempt = 2;
  m.replica = 3;
  m.generation = 9;
  m.prompt = {1, 2, 3};
  m.emitted = {4};
  m.params.temperature = 0.5F;
  m.params.top_k = 40;
  m.params.stop_ids = {5};
  m.params.logit_bias = {{6, -1.5F}};
  m.params.grammar = "json_object";
  m.params.seed = 1234567890123ULL;
  m.priority = -2;
  m.ttft_deadline_ms = 150;
  return m;
}

wire::step_message sample_step() {
  wire::step_message m;
  m.replica = 3;
  m.generation = 9;
  m.step = 4;
  m.work.entries.push_back({11, 16, 2, 1, {5, 6}});
  m.work.entries.push_back({12, 0, 1, 0, {7}});
  m.work.copies = {{1, 2}};
  m.ids = {10, 20, 30};
  m.opens.push_back({11, {}, {1, 2}, {3}});
  m.closes = {8};
  m.stage_us = {100};
  m.stage = 1;
  m.work.entries.push_back({13, 4, 3, 3, {8}});
  m.ids.insert(m.ids.end(), {31, 32, 33});
  m.drafts = {32, 33};
  return m;
}

wire::token_chunk sample_chunk() {
  wire::token_chunk m;
  m.queued_us = 1234;
  m.request = 7;
  m.attempt = 1;
  m.index = 5;
  wire::sampled s;
  s.sequence = 11;
  s.index = 5;
  s.token.id = 42;
  s.token.logprob = -0.5F;
  s.token.top = {{42, -0.5F}, {43, -1.0F}};
  s.token.ends = true;
  m.tokens = {s};
  m.cached_tokens = 16;
  return m;
}

wire::routing_table sample_table() {
  wire::routing_table m;
  m.epoch = 6;
  m.routes.push_back({1, 2, "n1", 99, "host:1", 123.5, true, 64});
  m.model.name = "smollm2";
  m.settings.max_sequence = 2048;
  m.settings.prefix_cache = true;
  m.switching = true;
  return m;
}

template <class F>
bool refused_because(F decode, const std::string& field) {
  try {
    (void)decode();
  } catch (const wire::wire_error& e) {
    return std::string(e.what()).find(field) != std::string::npos;
  }
  return false;
}

} // namespace

TEST_CASE("messages come back as they went") {
  const auto submit = wire::decode_submit(wire::encode(sample_submit()));
  CHECK(submit.prompt == std::vector<int>{1, 2, 3});
  CHECK(submit.emitted == std::vector<int>{4});
  CHECK(submit.attempt == 2);
  CHECK(submit.priority == -2);
  CHECK(submit.params.seed == 1234567890123ULL);
  CHECK(submit.params.temperature == 0.5F);
  CHECK(submit.params.logit_bias == sample_submit().params.logit_bias);
  CHECK(submit.params.grammar == "json_object");
  CHECK(submit.params.logprobs == -1);

  const auto step = wire::decode_step(wire::encode(sample_step()), {10, 50});
  CHECK(step.work.entries.at(0).blocks == std::vector<std::uint32_t>{5, 6});
  CHECK(step.work.copies == sample_step().work.copies);
  CHECK(step.ids == std::vector<int>{10, 20, 30, 31, 32, 33});
  CHECK(step.drafts == std::vector<int>{32, 33});
  auto refill = sample_step();
  refill.refill = true; // with logits and copies
  CHECK(refused_because([&] { return wire::decode_step(wire::encode(refill)); }, "refill"));
  refill.drafts.clear(), refill.work.copies.clear(), refill.opens.clear();
  for (auto& e : refill.work.entries)
    e.logits = 0;
  CHECK(wire::decode_step(wire::encode(refill)).refill);
  auto short_of_one = sample_step();
  short_of_one.drafts.pop_back();
  CHECK_THROWS_AS(wire::decode_step(wire::encode(short_of_one)), wire::wire_error);
  CHECK(step.opens.at(0).emitted == std::vector<int>{3});
  CHECK(step.closes == std::vector<std::uint64_t>{8});
  CHECK(step.stage == 1);

  const auto chunks =
      wire::decode_token_chunks(wire::encode(std::vector{sample_chunk(), wire::token_chunk{}}));
  REQUIRE(chunks.size() == 2);
  const auto& chunk = chunks[0];
  CHECK(chunk.tokens.at(0).token.top.at(1).id == 43);
  CHECK(chunk.tokens.at(0).token.ends);
  CHECK(chunk.cached_tokens == 16);
  CHECK(chunk.queued_us == 1234);

  const auto table = wire::decode_routing_table(wire::encode(sample_table()));
  CHECK(table.switching == sample_table().switching);
  CHECK(table.routes.at(0).node == "n1");
  CHECK(table.routes.at(0).draining);
  CHECK(table.settings.max_sequence == 2048);

  const auto failed =
      wire::decode_request_failed(wire::encode(wire::request_failed{1, 2, true, 503, "x"}));
  CHECK(failed.retry);
  CHECK(failed.message == "x");
  const auto cancel = wire::decode_cancel(wire::encode(wire::cancel{1, 2, 3, 4}));
  CHECK(cancel.generation == 4);
}

TEST_CASE("fields out of range are refused by name") {
  const auto submit_says = [](auto change, const std::string& field) {
    auto m = sample_submit();
    change(m);
    const auto head = wire::encode(m);
    CHECK(refused_because([&] { return wire::decode_submit(head); }, "submit." + field));
  };
  submit_says([](auto& m) { m.prompt.clear(); }, "prompt");
  submit_says([](auto& m) { m.prompt[1] = -4; }, "prompt");
  submit_says([](auto& m) { m.params.temperature = std::nanf(""); }, "temperature");
  submit_says([](auto& m) { m.params.top_p = 1.5F; }, "top_p");
  submit_says([](auto& m) { m.params.max_tokens = -1; }, "max_tokens");
  submit_says([](auto& m) { m.params.stop_ids.assign(5000, 1); }, "stop_ids");
  submit_says([](auto& m) { m.params.grammar.assign(1 << 20, 'x'); }, "grammar");
  submit_says([](auto& m) { m.ttft_deadline_ms = -1; }, "ttft_deadline_ms");

  const auto step_says = [](auto change, const std::string& field) {
    auto m = sample_step();
    change(m);
    const auto head = wire::encode(m);
    CHECK(refused_because(
        [&] {
          return wire::decode_step(head, {10, 50});
        },
        "step_message." + field));
  };
  step_says([](auto& m) { m.step = 0; }, "step");
  step_says([](auto& m) { m.work.entries[0].blocks.pop_back(); }, "entries.blocks");
  step_says([](auto& m) { m.work.entries[0].blocks[0] = 10; }, "entries.blocks");
  step_says([](auto& m) { m.work.entries[0].tokens = 0; }, "entries.tokens");
  step_says([](auto& m) { m.work.entries[0].logits = 3; }, "entries.logits");
  step_says([](auto& m) { m.work.entries[1].sequence = 11; }, "entries.sequence");
  step_says([](auto& m) { m.ids.pop_back(); }, "ids");
  step_says([](auto& m) { m.ids[0] = 50; }, "ids");
  step_says([](auto& m) { m.ids[0] = -2; }, "ids"); // -1 is unknown_token
  step_says([](auto& m) { m.work.copies[0].second = 10; }, "copy_from");
  step_says([](auto& m) { m.opens[0].prompt[0] = 50; }, "opens.prompt");
}

TEST_CASE("bytes that are no message are refused and never more than that") {
  std::mt19937 random(1);
  const std::vector<std::string> good{wire::encode(sample_submit()), wire::encode(sample_step()),
                                      wire::encode(std::vector{sample_chunk()}),
                                      wire::encode(sample_table())};
  int refused = 0;
  const auto attempt = [&](auto decode) {
    try {
      (void)decode();
    } catch (const wire::wire_error&) {
      ++refused;
    }
  };
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good[random() % good.size()];
    for (std::size_t n = random() % 4 + 1; n > 0; --n)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0)
      bytes.resize(random() % bytes.size());
    attempt([&] { return wire::decode_submit(bytes); });
    attempt([&] { return wire::decode_step(bytes, {10, 50}); });
    attempt([&] { return wire::decode_step_result(bytes); });
    attempt([&] { return wire::decode_token_chunks(bytes); });
    attempt([&] { return wire::decode_routing_table(bytes); });
    attempt([&] { return wire::decode_request_failed(bytes); });
    attempt([&] { return wire::decode_replica_status(bytes); });
    attempt([&] { return wire::decode_cancel(bytes); });
  }
  CHECK(refused > 1000);
}
