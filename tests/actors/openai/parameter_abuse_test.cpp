// Every number and list of a request beyond its bounds: 400 naming the parameter.
#include "actors/openai/bounds.hpp"
#include "actors/openai/openapi.hpp"
#include "tests/actors/openai/api_fixture.hpp"

using namespace hexgen;
using namespace hexgen::tests;
using nlohmann::json;

namespace {

const json chat = {{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
const json plain = {{"prompt", "hi"}};

struct abuse : api_fixture {
  abuse() { answer_with("ok"); }

  void refused(bool is_chat, const json& more, const std::string& param) {
    auto body = is_chat ? chat : plain;
    body.update(more);
    INFO(body.dump());
    const auto sink = post(is_chat ? "/v1/chat/completions" : "/v1/completions", body);
    CHECK(error_of(*sink, 400).at("param") == param);
  }
  void refused_both(const json& more, const std::string& param) {
    refused(true, more, param);
    refused(false, more, param);
  }
  void accepted(bool is_chat, const json& more) {
    auto body = is_chat ? chat : plain;
    body.update(more);
    const auto sink = post(is_chat ? "/v1/chat/completions" : "/v1/completions", body);
    INFO(body.dump() << " " << sink->reply.body);
    CHECK(sink->reply.status == 200);
  }
};

} // namespace

TEST_CASE_METHOD(abuse, "numbers beyond their bounds are refused by name") {
  for (const auto& bound : actors::number_bounds()) {
    const std::string name(bound.name);
    for (const bool is_chat : {true, false}) {
      if (is_chat ? !bound.chat : !bound.completion)
        continue;
      for (const json& value : {json(bound.lowest - 1), json(bound.highest + 1), json(1e300),
                                json(-1e300), json("1"), json::array({1}), json::object(),
                                json(true), json(std::uint64_t{18446744073709551615U})})
        refused(is_chat, {{name, value}}, name);
      if (bound.integer)
        refused(is_chat, {{name, 1.5}}, name);
      accepted(is_chat, {{name, nullptr}});
    }
  }
}

TEST_CASE_METHOD(abuse, "what is let in is what the sampler takes") {
  // The sampler refuses a top_p of 0, which clients mean as greedy; 1e-60 is 0 as a float.
  for (const double top_p : {0.0, 1e-60}) {
    accepted(true, {{"top_p", top_p}, {"temperature", 1}});
    CHECK(service.requests.back().params.top_p == 1.0F);
    CHECK(service.requests.back().params.temperature == 0.0F);
  }
  for (const auto& bound : actors::number_bounds())
    for (const bool is_chat : {true, false})
      for (double edge : {bound.lowest, bound.highest}) {
        const std::string name(bound.name);
        if ((is_chat ? !bound.chat : !bound.completion) || name.rfind("max_", 0) == 0 ||
            name == "min_tokens" || name == "best_of")
          continue; // bounded by the window and by n instead
        accepted(is_chat, {{name, edge}, {"logprobs", is_chat ? json(true) : json(1)}});
        const auto& r = service.requests.back();
        CHECK_NOTHROW(compute::sequence_sampler(r.params, r.prompt, {}, service.served->tokens));
      }
}

TEST_CASE_METHOD(abuse, "numbers that JSON cannot hold are refused by name") {
  for (const char* value : {"NaN", "Infinity", "-Infinity", "1e999", "-1e999"}) {
    const auto sink = call("POST", "/v1/completions",
                           std::string(R"({"prompt":"hi","temperature":)") + value + "}");
    INFO(value);
    CHECK(error_of(*sink, 400).at("param") == "temperature");
  }
}

TEST_CASE_METHOD(abuse, "lists and texts beyond their bounds are refused by name") {
  refused_both({{"stop", ""}}, "stop");
  refused_both({{"stop", {"a", 1}}}, "stop");
  refused_both({{"stop", 5}}, "stop");
  refused_both({{"stop", std::vector<std::string>(17, "x")}}, "stop");
  refused_both({{"stop", std::string(1025, 'x')}}, "stop");
  accepted(true, {{"stop", nullptr}});
  refused_both({{"stop_token_ids", {259}}}, "stop_token_ids");
  refused_both({{"stop_token_ids", {-1}}}, "stop_token_ids");
  refused_both({{"stop_token_ids", "1"}}, "stop_token_ids");
  refused_both({{"stop_token_ids", std::vector<int>(65, 1)}}, "stop_token_ids");
  for (const char* id : {"-1", "259", "99999999999999999999", "x", "", "1x", "1.0"})
    refused_both({{"logit_bias", {{id, 1}}}}, "logit_bias");
  refused_both({{"logit_bias", {{"1", 101}}}}, "logit_bias");
  refused_both({{"logit_bias", {{"1", "x"}}}}, "logit_bias");
  refused_both({{"logit_bias", {1}}}, "logit_bias");
  refused_both({{"seed", 1.5}}, "seed");
  refused_both({{"seed", "x"}}, "seed");
  refused_both({{"stream", "yes"}}, "stream");
  refused_both({{"stream", true}, {"stream_options", 1}}, "stream_options");
  refused_both({{"stream_options", {{"include_usage", true}}}}, "stream_options");
  refused_both({{"ignore_eos", 1}}, "ignore_eos");
  refused_both({{"user", 1}}, "user");
  refused_both({{"model", 1}}, "model");
  refused_both({{"response_format", "json"}}, "response_format");
  refused_both({{"response_format", {{"type", "xml"}}}}, "response_format");
  refused_both({{"response_format", {{"type", "json_schema"}}}}, "response_format");
  refused_both({{"min_tokens", 3}, {"max_tokens", 2}}, "min_tokens");
}

TEST_CASE_METHOD(abuse, "prompts of a wrong form are refused by name") {
  for (const json& prompt :
       {json(nullptr), json(1), json::object(), json::array(), json({1, "a"}), json({-1}),
        json({259}), json({1.5}), json(json::array({json::array()})), json(true)})
    refused(false, {{"prompt", prompt}}, "prompt");
  refused(false, {{"prompt", std::vector<std::string>(129, "a")}}, "prompt");
  refused(false, {{"prompt", {"a", "b"}}, {"n", 100}}, "n");
  refused(false, {{"prompt", json::array({json::array({1}), "a"})}}, "prompt");
  refused(false, {{"best_of", 3}}, "best_of");
  accepted(false, {{"best_of", 1}});
  refused(false, {{"suffix", "x"}}, "suffix");
  refused(false, {{"echo", true}, {"logprobs", 1}}, "echo");
  refused(false, {{"logprobs", true}}, "logprobs");
  for (const json& messages :
       {json(nullptr), json("hi"), json::array(), json({1}), json({{{"content", "x"}}}),
        json({{{"role", "king"}, {"content", "x"}}}), json({{{"role", 1}}}),
        json({{{"role", "user"}, {"content", 5}}}),
        json({{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}),
        json({{{"role", "tool"}, {"content", "this template refuses it"}}})})
    refused(true, {{"messages", messages}}, "messages");
  refused(true, {{"tools", {{{"type", "function"}}}}}, "tools");
  refused(true, {{"top_logprobs", 2}}, "top_logprobs");
  refused(true, {{"logprobs", 2}}, "logprobs");
  accepted(true, {{"tools", {{{"type", "function"}}}}, {"tool_choice", "none"}});
  accepted(true, {{"messages",
                   {{{"role", "developer"}, {"content", {{{"type", "text"}, {"text", "x"}}}}},
                    {{"role", "assistant"}, {"content", nullptr}}}}});
}

TEST_CASE_METHOD(abuse, "a prompt over the window says so") {
  const auto code = [&](bool is_chat, const json& more, const std::string& param) {
    auto body = is_chat ? chat : plain;
    body.update(more);
    const auto sink = post(is_chat ? "/v1/chat/completions" : "/v1/completions", body);
    const auto error = error_of(*sink, 400);
    CHECK(error.at("code") == "context_length_exceeded");
    CHECK(error.at("param") == param);
  };
  code(false, {{"prompt", std::string(600, 'x')}}, "prompt");
  code(false, {{"prompt", std::vector<int>(513, 1)}}, "prompt");
  code(false, {{"prompt", std::vector<int>(512, 1)}}, "prompt");
  code(false, {{"prompt", std::vector<int>(500, 1)}, {"max_tokens", 13}}, "max_tokens");
  accepted(false, {{"prompt", std::vector<int>(500, 1)}, {"max_tokens", 12}});
  accepted(false, {{"prompt", std::vector<int>(511, 1)}}); // the default of 16 shrinks
  CHECK(service.requests.back().params.max_tokens == 1);
  code(true, {{"messages", {{{"role", "user"}, {"content", std::string(600, 'x')}}}}}, "messages");
  code(true, {{"max_completion_tokens", 512}}, "max_completion_tokens");
}

TEST_CASE_METHOD(abuse, "what is not JSON is a 400, whatever it is") {
  for (const std::string body : {"", "{", "[]", "null", "\"x\"", "{\"prompt\":}",
                                 "{\"prompt\":\"\xff\xfe\"}", "\0", "{\"a\":1,}"}) {
    const auto sink = call("POST", "/v1/completions", body);
    CHECK(error_of(*sink, 400).at("type") == "invalid_request_error");
  }
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  CHECK(error_of(*call("POST", "/v1/completions", "{\"prompt\":" + deep + "}"), 400)
            .at("message")
            .get<std::string>()
            .find("nested") != std::string::npos);
  for (const char* value : {"", "x", "-1", "0", "nan", "inf", "1e99", "5 ms"}) {
    const auto sink = post("/v1/completions", plain, {{"x-slo-ttft-ms", value}});
    CHECK(error_of(*sink, 400).at("param") == "x-slo-ttft-ms");
  }
}

TEST_CASE("the OpenAPI description shows the parser's own bounds") {
  const auto api = json_of(actors::openapi_json("1.2.3", true));
  CHECK(api.at("info").at("version") == "1.2.3");
  const auto properties = [&](const char* path) {
    return api.at("paths")
        .at(path)
        .at("post")
        .at("requestBody")
        .at("content")
        .at("application/json")
        .at("schema")
        .at("properties");
  };
  const auto chat_fields = properties("/v1/chat/completions");
  const auto plain_fields = properties("/v1/completions");
  for (const auto& bound : actors::number_bounds()) {
    const auto& fields = bound.chat ? chat_fields : plain_fields;
    const auto& number = fields.at(std::string(bound.name));
    CHECK(number.at("minimum").get<double>() == bound.lowest);
    CHECK(number.at("maximum").get<double>() == bound.highest);
    CHECK(number.at("type") == (bound.integer ? "integer" : "number"));
  }
  CHECK(plain_fields.at("prompt").at("oneOf").size() == 4);
  CHECK(chat_fields.at("messages").at("items").at("required") == json::array({"role"}));
  CHECK(chat_fields.at("response_format").at("properties").at("type").at("enum").size() == 3);
}
