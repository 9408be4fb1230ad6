#include "actors/data/step_codec.hpp"
#include "tests/catch.hpp"
#include "transport/proto/hexgen.pb.h"

#include <limits>
#include <random>

using namespace hexgen::actors;

namespace {

step_head sample_head() {
  step_head head;
  head.replica = 1;
  head.generation = 2;
  head.number = 3;
  head.stage = 1;
  head.step.entries = {{5, 14, 3, 1, {4, 9}}, {6, 0, 2, 0, {7}}};
  head.step.copies = {{1, 2}};
  head.ids = {10, 11, 12, 13, 14};
  head.closes = {99};
  head.stage_us = {120};
  sequence_open open;
  open.sequence = 5;
  open.params.temperature = 0.7F;
  open.params.seed = 42;
  open.params.max_tokens = 9;
  open.params.stop_ids = {3};
  open.params.logit_bias = {{8, -1.5F}};
  open.params.grammar = "json_object";
  open.prompt = {1, 2, 3};
  open.emitted = {4};
  head.opens = {open};
  return head;
}

} // namespace

TEST_CASE("a step survives the wire") {
  std::string why;
  const auto sent = sample_head();
  const auto got = decode_step(encode(sent), why);
  REQUIRE(got);
  CHECK(encode(*got) == encode(sent));
  CHECK(got->step.entries[0].blocks == sent.step.entries[0].blocks);
  CHECK(got->opens[0].params.grammar == "json_object");
}

TEST_CASE("a step that lies is refused with the field's name") {
  std::string why;
  auto head = sample_head();
  head.step.entries[0].blocks = {4}; // 17 positions need two
  CHECK_FALSE(decode_step(encode(head), why));
  CHECK(why.find("blocks") != std::string::npos);

  head = sample_head();
  head.ids.pop_back();
  CHECK_FALSE(decode_step(encode(head), why));
  CHECK(why.find("ids") != std::string::npos);

  head = sample_head();
  head.step.entries[1].logits = 3;
  CHECK_FALSE(decode_step(encode(head), why));

  head = sample_head();
  head.opens[0].params.temperature = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(decode_step(encode(head), why));
  CHECK(why.find("sampling") != std::string::npos);
}

TEST_CASE("no flipped byte of a data message crashes a decoder") {
  std::mt19937 random(1);
  step_result result;
  result.number = 4;
  result.tokens.resize(3);
  const std::string messages[] = {encode(sample_head()),
                                  encode(collective_head{1, 2, 3, 4, 1, 0, 0}), encode(result)};
  for (const auto& message : messages)
    for (int i = 0; i < 20'000; ++i) {
      auto bytes = message;
      for (int flips = 0; flips < 3; ++flips)
        bytes[random() % bytes.size()] = static_cast<char>(random());
      bytes.resize(random() % (bytes.size() + 1));
      std::string why;
      (void)decode_step(bytes, why);
      (void)decode_collective(bytes, why);
      (void)decode_step_result(bytes, why);
    }
  SUCCEED("no crash");
}
