#include "actors/core/answer_stream.hpp"
#include "tests/actors/core/fake_tokenizer.hpp"
#include "tests/catch.hpp"

using hexgen::actors::answer_stream;

namespace {
answer_stream make(std::vector<std::string> stop, bool skip_special = true, int min_tokens = 0) {
  return {std::make_shared<hexgen::tests::byte_tokenizer>(), std::move(stop), skip_special,
          min_tokens};
}
hexgen::compute::sampled_token token(int id, bool ends = false, bool by_length = false) {
  hexgen::compute::sampled_token t;
  t.id = id;
  t.ends = ends;
  t.ends_by_length = by_length;
  return t;
}
answer_stream::output push_text(answer_stream& a, std::string_view text) {
  answer_stream::output o;
  for (const char c : text)
    a.push(token(static_cast<unsigned char>(c)), o);
  return o;
}
} // namespace

TEST_CASE("half a character waits, with its token, for the rest") {
  auto a = make({});
  auto o = push_text(a, "x\xc3");
  CHECK(o.text == "x");
  CHECK(o.tokens.size() == 1);
  o = push_text(a, "\xa9");
  CHECK(o.text == "\xc3\xa9");
  CHECK(o.tokens.size() == 2);
}

TEST_CASE("half a stop string is shown neither as text nor as tokens") {
  auto a = make({"END"});
  auto o = push_text(a, "abEN");
  CHECK(o.text == "ab");
  CHECK(o.tokens.size() == 2);
  o = push_text(a, "x");
  CHECK(o.text == "ENx");
  CHECK(o.tokens.size() == 3);
  o = push_text(a, "yENDmore");
  CHECK(o.text == "y");
  CHECK(o.tokens.size() == 1);
  CHECK(o.finish_reason == "stop");
  CHECK(a.completion_tokens() == 9);
  CHECK(push_text(a, "zzz").text.empty());
}

TEST_CASE("what was held back is shown when the length ends the answer") {
  auto a = make({"END"});
  auto o = push_text(a, "aE");
  a.push(token('N', true, true), o);
  CHECK(o.text == "aEN");
  CHECK(o.tokens.size() == 3);
  CHECK(o.finish_reason == "length");
}

TEST_CASE("an end token is counted but is no text") {
  for (const bool skip : {true, false}) {
    auto a = make({}, skip);
    auto o = push_text(a, "hi");
    a.push(token(256, true), o);
    CHECK(o.text == "hi");
    CHECK(o.finish_reason == "stop");
    CHECK(o.tokens.size() == 3);
    CHECK(a.completion_tokens() == 3);
  }
}

TEST_CASE("stop strings count from min_tokens on") {
  auto a = make({"b"}, true, 3);
  const auto o = push_text(a, "abab");
  CHECK(o.text == "aba");
  CHECK(o.finish_reason == "stop");
}
