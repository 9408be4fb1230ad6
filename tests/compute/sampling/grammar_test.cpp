#include "compute/sampler.hpp"
#include "compute/sampling/grammar.hpp"
#include "compute/sampling/json_schema.hpp"
#include "tests/catch.hpp"
#include "tests/compute/sampling/fake_tokenizer.hpp"
#include "tests/compute/sampling/schema_validator.hpp"

#include <chrono>
#include <limits>
#include <random>

using namespace hexgen::compute;

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();
constexpr token_id end_token = 256;

// Every byte, an end token, and pieces that cross the borders of JSON's parts.
std::shared_ptr<const tokenizer> json_tokens() {
  static const auto tokens = [] {
    std::vector<std::string> pieces;
    for (int b = 0; b < 256; ++b)
      pieces.emplace_back(1, static_cast<char>(b));
    pieces.emplace_back("<end>");
    for (const auto* p :
         {"\": ", "\", \"", "{\"",  "\"}",  "}}",       "]]",     "],[",
          "true", "fal",    "null", "}, {", "1.5e",     "12",     "00",
          "\\u",  "\\\"",   "name", "\":",  "\xE2\x82", "\xAC\"", "\xF0\x9F\x98\x80",
          "\n  ", ", ",     "-1",   "[{",   "abc",      "é\":"})
      pieces.emplace_back(p);
    return std::make_shared<fake_tokenizer>(pieces, std::vector<token_id>{end_token});
  }();
  return tokens;
}

bool may_follow(const std::string& grammar, const std::string& text, token_id next) {
  grammar_matcher matcher(compile_grammar(grammar, json_tokens()));
  for (const char c : text)
    matcher.accept(static_cast<unsigned char>(c));
  std::vector<float> logits(static_cast<std::size_t>(json_tokens()->vocab()), 0.0F);
  matcher.mask(logits);
  return logits[static_cast<std::size_t>(next)] == 0.0F;
}

bool is_whole(const std::string& grammar, const std::string& text) {
  grammar_matcher matcher(compile_grammar(grammar, json_tokens()));
  for (const char c : text)
    matcher.accept(static_cast<unsigned char>(c));
  return matcher.complete();
}

// A random text of the grammar: after `calm` tokens it takes what closes, where that may come.
std::string random_text(const std::string& grammar, unsigned seed, int calm) {
  std::mt19937 random(seed);
  grammar_matcher matcher(compile_grammar(grammar, json_tokens()));
  const auto vocab = static_cast<std::size_t>(json_tokens()->vocab());
  std::string text;
  for (int step = 0; step < 3000; ++step) {
    std::vector<float> logits(vocab, 0.0F);
    matcher.mask(logits);
    std::vector<token_id> allowed;
    for (std::size_t i = 0; i < vocab; ++i)
      if (logits[i] != forbidden)
        allowed.push_back(static_cast<token_id>(i));
    if (allowed.empty())
      throw std::runtime_error("nothing may follow: " + text);
    auto id = allowed[random() % allowed.size()];
    // Text within strings is mostly printable, so that strings do not drown everything else.
    if (id < 32 || id > 126)
      id = allowed[random() % allowed.size()];
    if (step > calm) {
      const auto may = [&](token_id t) { return logits[static_cast<std::size_t>(t)] != forbidden; };
      const bool in_string = may('}') && may(']');
      const std::vector<token_id> closings =
          in_string ? std::vector<token_id>{end_token, '"'}
                    : std::vector<token_id>{end_token, '}', ']', '"', '1'};
      for (const auto closing : closings)
        if (may(closing)) {
          id = closing;
          break;
        }
    }
    if (id == end_token)
      return text;
    matcher.accept(id);
    text += json_tokens()->piece(id, false);
  }
  throw std::runtime_error("does not end: " + text);
}

const std::vector<std::string> schemas = {
    R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 130}, "ok": {"type": "boolean"}},
        "required": ["name", "age"], "additionalProperties": false})",
    R"({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "number"},
        "ab": {"const": {"x": [1, 2.5, "é"]}}}})",
    R"({"type": "object", "properties": {"name": {"type": "string"}, "n": {}},
        "additionalProperties": {"type": "integer"}})",
    R"({"type": "object", "additionalProperties": {"type": "boolean"}})",
    R"({"type": "object", "required": ["z"], "properties": {"y": {"type": "null"}}})",
    R"({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4})",
    R"({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}],
        "items": {"type": "boolean"}, "minItems": 1, "maxItems": 5})",
    R"({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}, {"const": 3}],
        "items": false})",
    R"({"enum": ["red", "green", 3, null, {"a": true}, "say \"hi\""]})",
    R"({"type": "string", "minLength": 3, "maxLength": 5})",
    R"({"type": "string", "pattern": "^[A-Z]{2}-\\d{2,4}(foo|bar)?$"})",
    R"({"type": "string", "pattern": "a+b?[^x-z\"]"})",
    R"({"type": ["string", "null", "integer"], "minimum": -17, "exclusiveMaximum": 1234})",
    R"({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]})",
    R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type":
        "number"}}, "required": ["kind", "x"]}, {"type": "object", "properties": {"kind": {"const":
        "b"}, "y": {"type": "string"}}, "required": ["kind"]}]})",
    R"({"$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer"}, "kids":
        {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "required": ["v"]}},
        "$ref": "#/$defs/tree"})",
    R"({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"]})",
    R"({"allOf": [{"type": "boolean"}], "title": "ignored"})",
    R"({"type": "integer", "minimum": 95, "maximum": 10007})",
    R"({"type": "integer", "exclusiveMinimum": -250, "maximum": -9})",
    "{}",
    "true"};

} // namespace

TEST_CASE("random walks always give valid documents") {
  for (const auto& text : schemas) {
    INFO(text);
    const auto schema = schema_json::parse(text);
    for (unsigned seed = 0; seed < 60; ++seed) {
      const auto document = random_text(text, seed, 20 + static_cast<int>(seed));
      INFO(document);
      const auto value = schema_json::parse(document, nullptr, false);
      REQUIRE_FALSE(value.is_discarded());
      REQUIRE(valid(schema, schema, value));
    }
  }
}

TEST_CASE("json_object gives objects of any kind") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    const auto document = random_text("json_object", seed, 60);
    INFO(document);
    REQUIRE(schema_json::parse(document, nullptr, false).is_object());
  }
}

TEST_CASE("what is valid can be said") {
  const auto& person = schemas[0];
  CHECK(is_whole(person, R"({"name":"Zo","age":7})"));
  CHECK(is_whole(person, "{\n  \"name\": \"Zo\",\n  \"age\": 130,\n  \"ok\": true\n}"));
  CHECK_FALSE(is_whole(person, R"({"name":"Zo","age":131})"));
  CHECK_FALSE(is_whole(person, R"({"name":"Zo"})"));
  CHECK_FALSE(is_whole(person, R"({"age":7})"));
  CHECK_FALSE(is_whole(person, R"({"name":"123456789","age":7})"));
  CHECK(is_whole(schemas[2], R"({"n": [], "names": 3})"));
  CHECK(is_whole(schemas[2], R"({"x": -1, "nam": 0})"));
  CHECK_FALSE(is_whole(schemas[2], R"({"n": [], "name": 3})"));
  CHECK(is_whole(schemas[15], R"({"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3}]})"));
  CHECK(is_whole(schemas[16], R"({"next": {"next": null}})"));
  for (const auto* n : {"95", "99", "100", "999", "1000", "9999", "10000", "10007"})
    CHECK(is_whole(schemas[18], n));
  for (const auto* n : {"94", "9", "0", "10008", "10010", "20000", "095", "-95", ""})
    CHECK_FALSE(is_whole(schemas[18], n));
  for (const auto* n : {"-9", "-10", "-99", "-100", "-249"})
    CHECK(is_whole(schemas[19], n));
  for (const auto* n : {"-8", "-250", "-1000", "9", "0"})
    CHECK_FALSE(is_whole(schemas[19], n));
  for (const auto* s : {R"("AB-12")", R"("AB-1234bar")"})
    CHECK(is_whole(schemas[10], s));
  for (const auto* s : {R"("AB-1")", R"("xAB-12")", R"("AB-12345")", R"("AB-12fo")"})
    CHECK_FALSE(is_whole(schemas[10], s));
  CHECK(is_whole(schemas[11], R"("xxaab!yy")"));
  CHECK(is_whole("json_object", R"({"a":{"b":[1,-2.5e3,"\ud83d\ude00",true,null,{}]}})"));
  CHECK_FALSE(is_whole("json_object", R"({"a":"\ud83d"})"));
  CHECK_FALSE(is_whole("json_object", "[]"));
}

TEST_CASE("end tokens come only when the value is complete, and nothing follows them") {
  CHECK_FALSE(may_follow("json_object", "", end_token));
  CHECK(may_follow("json_object", "{}", end_token));
  CHECK_FALSE(may_follow("json_object", "{}", ' '));
  CHECK_FALSE(may_follow("json_object", "", ' '));
  grammar_matcher matcher(compile_grammar("json_object", json_tokens()));
  matcher.accept('{');
  CHECK_FALSE(matcher.complete());
  matcher.accept('}');
  CHECK(matcher.complete());
  matcher.accept(end_token);
  std::vector<float> logits(400, 0.0F); // wider than the vocabulary, as padded models are
  matcher.mask(logits);
  for (std::size_t i = 0; i < logits.size(); ++i)
    CHECK((logits[i] == 0.0F) == (i == end_token));
}

TEST_CASE("white space is bounded") {
  CHECK(may_follow("json_object", "{\n" + std::string(19, ' '), ' '));
  CHECK_FALSE(may_follow("json_object", "{\n" + std::string(20, ' '), ' '));
  CHECK_FALSE(may_follow("json_object", "{\n", '\n'));
}

TEST_CASE("schemas that cannot be served are refused by name") {
  const auto refused = [](const std::string& schema, const std::string& part) {
    INFO(schema);
    try {
      (void)compile_grammar(schema, json_tokens());
      FAIL("no error");
    } catch (const std::invalid_argument& e) {
      INFO(e.what());
      CHECK(std::string(e.what()).find(part) != std::string::npos);
    }
  };
  refused("{", "not JSON");
  refused("[]", "#");
  refused("false", "false");
  refused(R"({"type": "text"})", "type");
  refused(R"({"properties": {"a": {"not": {}}}})", "#/properties/a: not");
  refused(R"({"$ref": "#/nowhere"})", "nowhere");
  refused(R"({"$ref": "http://example.com/s"})", "local");
  refused(R"({"$ref": "#"})", "itself");
  refused(R"({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#"}}})", "itself");
  refused(R"({"type": "number", "minimum": 1})", "minimum");
  refused(R"({"type": "integer", "minimum": 5, "maximum": 4})", "bounds");
  refused(R"({"type": "array", "minItems": 3, "maxItems": 2})", "maxItems");
  refused(R"({"type": "array", "minItems": -1})", "minItems");
  refused(R"({"type": "string", "minLength": 1e99})", "minLength");
  refused(R"({"type": "string", "maxLength": 900000})", "too large");
  refused(R"({"type": "string", "pattern": "(a"})", "pattern");
  refused(R"x({"type": "string", "pattern": "(?=a)"})x", "look-around");
  refused(R"({"type": "string", "pattern": "((a{999}){999}){999}"})", "too large");
  refused(R"({"enum": []})", "enum");
  refused(R"({"type": "string", "enum": [1, 2]})", "enum");
  refused(R"({"required": ["a"], "additionalProperties": false})", "required");
  refused(R"({"allOf": [{}, {}]})", "allOf");
  refused(R"({"anyOf": [{}], "properties": {}})", "properties beside anyOf");
  refused(std::string(100'000, '['), "");
  std::string deep;
  for (int i = 0; i < 100; ++i)
    deep += R"({"items":)";
  refused(deep + "{}" + std::string(100, '}'), "deep");
}

TEST_CASE("deep nesting stays within bounds") {
  std::string text;
  grammar_matcher matcher(compile_grammar("{}", json_tokens()));
  std::vector<float> logits(static_cast<std::size_t>(json_tokens()->vocab()));
  int depth = 0;
  for (; depth < 10'000; ++depth) {
    std::fill(logits.begin(), logits.end(), 0.0F);
    matcher.mask(logits);
    if (logits['['] == forbidden)
      break;
    matcher.accept('[');
  }
  CHECK((depth >= 64 && depth < 1000));
  for (int i = 0; i < depth; ++i)
    matcher.accept(']');
  CHECK(matcher.complete());
}

TEST_CASE("a sequence with a grammar, resumed at any index, goes on as the undisturbed one") {
  const auto generate = [](std::vector<token_id> emitted) {
    sampling_params p;
    p.seed = 3;
    p.temperature = 0.8F;
    p.max_tokens = 60;
    p.grammar = schemas[0];
    sequence_sampler sampler(p, {}, emitted, json_tokens());
    for (bool ends = false; !ends && emitted.size() < 60;) {
      std::mt19937 random(static_cast<unsigned>(emitted.size()));
      std::vector<float> logits(static_cast<std::size_t>(json_tokens()->vocab()));
      for (float& l : logits)
        l = static_cast<float>(random() % 100) / 25.0F;
      const auto t = sampler.next(logits);
      emitted.push_back(t.id);
      ends = t.ends;
    }
    return emitted;
  };
  const auto whole = generate({});
  CHECK(whole.size() > 10);
  for (std::size_t cut = 0; cut < whole.size(); ++cut)
    REQUIRE(generate({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut)}) == whole);
}
