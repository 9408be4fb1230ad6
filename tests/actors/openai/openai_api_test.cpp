#include "actors/openai/openai_api.hpp"
#include "tests/actors/openai/api_fixture.hpp"

using namespace hexgen;
using namespace hexgen::tests;
using nlohmann::json;

namespace {

const json hello = {{"messages", {{{"role", "user"}, {"content", "hi"}}}}};

json with(json base, const json& more) {
  base.update(more);
  return base;
}

} // namespace

TEST_CASE_METHOD(api_fixture, "a chat is answered whole") {
  answer_with("Paris");
  const auto sink = post("/v1/chat/completions", with(hello, {{"model", "alias"}, {"n", 2}}),
                         {{"x-request-id", "abc-1"}});
  CHECK(sink->reply.status == 200);
  REQUIRE(transport::find_header(sink->reply.headers, "x-request-id") != nullptr);
  CHECK(*transport::find_header(sink->reply.headers, "x-request-id") == "abc-1");
  const auto reply = json_of(sink->reply.body);
  CHECK(reply.at("id").get<std::string>().rfind("chatcmpl-", 0) == 0);
  CHECK(reply.at("object") == "chat.completion");
  CHECK(reply.at("model") == "alias");
  CHECK(reply.at("created").get<long>() > 1700000000);
  REQUIRE(reply.at("choices").size() == 2);
  const auto& choice = reply.at("choices")[1];
  CHECK(choice.at("index") == 1);
  CHECK(choice.at("message") == json({{"role", "assistant"}, {"content", "Paris"}}));
  CHECK(choice.at("finish_reason") == "stop");
  CHECK(choice.at("logprobs").is_null());
  CHECK(reply.at("usage") == json({{"prompt_tokens", 5},
                                   {"completion_tokens", 10},
                                   {"total_tokens", 15},
                                   {"prompt_tokens_details", {{"cached_tokens", 2}}}}));
  REQUIRE(service.requests.size() == 1);
  const auto& asked = service.requests[0];
  CHECK(asked.choices == 2);
  CHECK(reply.at("id") == json(asked.id)); // json on both sides: C++20 finds two ways otherwise
  CHECK(service.served->tokens->decode(asked.prompt, false) == "user:hi<|im_end|>assistant:");
  CHECK(asked.params.max_tokens == 512 - static_cast<int>(asked.prompt.size()));
  CHECK(api.running() == 1); // the fake still holds the job
  service.drop(1);
  CHECK(api.running() == 0);
}

TEST_CASE_METHOD(api_fixture, "a chat is streamed with its role, usage and an end") {
  const auto sink =
      post("/v1/chat/completions",
           with(hello, {{"stream", true}, {"stream_options", {{"include_usage", true}}}}));
  CHECK_FALSE(sink->opened); // nothing before the first token: it would fake a low TTFT
  service.say(1, "Pa", 1);
  CHECK(sink->opened);
  service.say(1, "", 2);
  service.say(1, "ris", 3, "length");
  CHECK(sink->closed);
  REQUIRE(sink->payloads.size() == 4);
  CHECK(sink->payloads.back() == "[DONE]");
  const auto first = json_of(sink->payloads[0]);
  const auto last = json_of(sink->payloads[1]);
  const auto usage = json_of(sink->payloads[2]);
  CHECK(first.at("object") == "chat.completion.chunk");
  CHECK(first.at("choices")[0].at("delta") == json({{"role", "assistant"}, {"content", "Pa"}}));
  CHECK(first.at("choices")[0].at("finish_reason").is_null());
  CHECK(first.at("usage").is_null());
  CHECK(last.at("choices")[0].at("delta") == json({{"content", "ris"}}));
  CHECK(last.at("choices")[0].at("finish_reason") == "length");
  CHECK(usage.at("choices") == json::array());
  CHECK(usage.at("usage").at("total_tokens") == 8);
  for (const auto* chunk : {&last, &usage}) {
    CHECK(chunk->at("id") == first.at("id"));
    CHECK(chunk->at("created") == first.at("created"));
  }
}

TEST_CASE_METHOD(api_fixture, "a stream without include_usage has no usage key") {
  answer_with("ab");
  const auto sink = post("/v1/completions", {{"prompt", "x"}, {"stream", true}});
  REQUIRE(sink->payloads.size() == 3);
  const auto chunk = json_of(sink->payloads[0]);
  CHECK(chunk.at("object") == "text_completion");
  CHECK(chunk.at("choices")[0].at("text") == "a");
  CHECK_FALSE(chunk.contains("usage"));
}

TEST_CASE_METHOD(api_fixture, "a held-back character still counts as a token chunk") {
  const auto sink = post("/v1/completions", {{"prompt", "x"}, {"stream", true}});
  actors::generation_event half;
  half.tokens = {{0xc3, -1, {}}};
  half.completion_tokens = 1;
  service.play(1, half);
  REQUIRE(sink->payloads.size() == 1);
  CHECK(json_of(sink->payloads[0]).at("choices")[0].at("text") == "");
}

TEST_CASE_METHOD(api_fixture, "completions take texts, ids and lists of both") {
  answer_with("ok");
  const auto tokens = [&](const json& prompt) {
    service.requests.clear();
    const auto sink = post("/v1/completions", {{"prompt", prompt}});
    CHECK(sink->reply.status == 200);
    std::vector<std::vector<int>> all;
    for (const auto& one : service.requests)
      all.emplace_back(one.prompt.begin(), one.prompt.end());
    CHECK(json_of(sink->reply.body).at("choices").size() == all.size());
    return all;
  };
  using lists = std::vector<std::vector<int>>;
  CHECK(tokens("ab") == lists{{256, 97, 98}});
  CHECK(tokens({97, 98}) == lists{{97, 98}});
  CHECK(tokens({"a", "b"}) == lists{{256, 97}, {256, 98}});
  CHECK(tokens(json::array({json::array({97}), json::array({98, 99})})) == lists{{97}, {98, 99}});
  CHECK(service.requests[0].params.max_tokens == 16);
}

TEST_CASE_METHOD(api_fixture, "echo puts the prompt first") {
  answer_with("cd");
  const json body = {{"prompt", "ab"}, {"echo", true}};
  CHECK(json_of(post("/v1/completions", body)->reply.body).at("choices")[0].at("text") == "abcd");
  const auto sink = post("/v1/completions", with(body, {{"stream", true}}));
  CHECK(json_of(sink->payloads[0]).at("choices")[0].at("text") == "abc");
  CHECK(json_of(sink->payloads[1]).at("choices")[0].at("text") == "d");
}

TEST_CASE_METHOD(api_fixture, "logprobs come in both styles") {
  service.on_submit = [&](std::uint64_t ticket, const actors::generation_request& r) {
    CHECK(r.params.logprobs == 2);
    actors::generation_event event;
    event.text = "a\xc3\xa9";
    event.tokens = {{'a', -0.25F, {{'a', -0.25F}, {'b', -2.0F}}},
                    {0xc3, -0.5F, {{0xc3, -0.5F}}},
                    {0xa9, 0.0F, {}}};
    event.completion_tokens = 3;
    event.finish_reason = "stop";
    service.play(ticket, event);
  };
  const auto chat =
      json_of(post("/v1/chat/completions", with(hello, {{"logprobs", true}, {"top_logprobs", 2}}))
                  ->reply.body);
  const auto& content = chat.at("choices")[0].at("logprobs").at("content");
  REQUIRE(content.size() == 3);
  CHECK(content[0].at("token") == "a");
  CHECK(content[0].at("bytes") == json({97}));
  CHECK(content[0].at("top_logprobs")[1].at("token") == "b");
  CHECK(content[1].at("bytes") == json({0xc3}));
  const auto plain =
      json_of(post("/v1/completions", {{"prompt", "x"}, {"logprobs", 2}})->reply.body);
  const auto& logprobs = plain.at("choices")[0].at("logprobs");
  CHECK(logprobs.at("tokens") == json({"a", "bytes:\\xc3", "bytes:\\xa9"}));
  CHECK(logprobs.at("token_logprobs") == json({-0.25, -0.5, 0.0}));
  CHECK(logprobs.at("text_offset") == json({0, 1, 2}));
  CHECK(logprobs.at("top_logprobs")[0] == json({{"a", -0.25}, {"b", -2.0}}));
}

TEST_CASE_METHOD(api_fixture, "a schema reaches the sampler in the client's order, or is refused") {
  answer_with("ok");
  const auto ask = [&](const std::string& schema) {
    return call("POST", "/v1/completions",
                R"({"zeta":{"b":1},"prompt":"x","response_format":{"type":"json_schema",)"
                R"("json_schema":{"name":"n","schema":)" +
                    schema + "}}}");
  };
  const std::string schema = R"({"type":"object","properties":{"z":{"type":"string"},)"
                             R"("a":{"type":"integer"}},"required":["z","a"]})";
  CHECK(ask(schema)->reply.status == 200);
  CHECK(service.requests.at(0).params.grammar == schema);
  for (const char* wrong : {R"({"type":"nonsense"})", R"({"$ref":"#/nowhere"})", "5", "{}}"}) {
    const auto sink = ask(wrong);
    CHECK(sink->reply.status == 400);
    INFO(sink->reply.body);
    CHECK((std::string(wrong) == "{}}" ||
           json_of(sink->reply.body).at("error").at("param") == "response_format"));
  }
}

TEST_CASE_METHOD(api_fixture, "token ids come along when asked for") {
  answer_with("ab");
  const json body = {{"prompt", "x"}, {"return_token_ids", true}};
  CHECK(json_of(post("/v1/completions", body)->reply.body).at("choices")[0].at("token_ids") ==
        json({97, 98}));
  const auto sink = post("/v1/completions", with(body, {{"stream", true}}));
  CHECK(json_of(sink->payloads[1]).at("choices")[0].at("token_ids") == json::array({98}));
}

TEST_CASE_METHOD(api_fixture, "refusals keep their status and say when to come again") {
  service.on_submit = [&](std::uint64_t ticket, const actors::generation_request&) {
    service.refuse(ticket, {429, "", "the queue is full", 3});
  };
  for (const bool stream : {false, true}) {
    const auto sink = post("/v1/chat/completions", with(hello, {{"stream", stream}}));
    CHECK(error_of(*sink, 429).at("type") == "rate_limit_error");
    REQUIRE(transport::find_header(sink->reply.headers, "Retry-After") != nullptr);
    CHECK(*transport::find_header(sink->reply.headers, "Retry-After") == "3");
    CHECK_FALSE(sink->opened);
  }
  service.on_submit = [&](std::uint64_t ticket, const actors::generation_request&) {
    service.refuse(ticket, {503, "unavailable", "no complete pipeline", 1});
  };
  CHECK(error_of(*post("/v1/chat/completions", hello), 503).at("code") == "service_unavailable");
  CHECK(metrics.text().find(R"(vllm:num_requests_waiting{engine="0",model_name="fake"} 0)") !=
        std::string::npos);
}

TEST_CASE_METHOD(api_fixture, "a failure after the first token is a frame and [DONE]") {
  const auto sink = post("/v1/chat/completions", with(hello, {{"stream", true}}));
  service.say(1, "a", 1);
  actors::generation_event broken;
  broken.error_status = 500;
  broken.error_message = "a stage was lost";
  service.play(1, broken);
  REQUIRE(sink->payloads.size() == 3);
  const auto error = json_of(sink->payloads[1]).at("error");
  CHECK(error.at("message").get<std::string>().find("a stage was lost (request chatcmpl-") == 0);
  CHECK(error.at("type") == "server_error");
  CHECK(sink->payloads[2] == "[DONE]");
  CHECK(sink->closed);
  service.say(1, "late", 2);
  CHECK(sink->payloads.size() == 3);
}

TEST_CASE_METHOD(api_fixture, "one failed choice ends the others") {
  const auto sink = post("/v1/completions", {{"prompt", {"a", "b"}}});
  service.say(1, "x", 1);
  actors::generation_event broken;
  broken.error_status = 503;
  broken.error_message = "gone";
  service.play(2, broken);
  CHECK(error_of(*sink, 503).at("type") == "unavailable_error");
  CHECK(std::count(service.cancelled.begin(), service.cancelled.end(), 1U) == 1);
  CHECK(api.running() == 0);
}

TEST_CASE_METHOD(api_fixture, "a client that hangs up cancels, stream or not") {
  for (const bool stream : {false, true}) {
    service.cancelled.clear();
    const auto sink = post("/v1/completions", {{"prompt", {"a", "b"}}, {"stream", stream}});
    const auto ticket = stream ? 3U : 1U;
    service.say(ticket, "x", 1);
    REQUIRE(sink->hang_up);
    sink->hang_up();
    CHECK(service.cancelled == std::vector<std::uint64_t>{ticket, ticket + 1});
    CHECK(api.running() == 0);
    sink->hang_up(); // nothing twice
    CHECK(service.cancelled.size() == 2);
  }
  const auto sink = post("/v1/completions", {{"prompt", "a"}, {"stream", true}});
  sink->gone = true; // a write that fails says it too
  service.say(5, "x", 1);
  CHECK(service.cancelled.back() == 5);
  CHECK(metrics.text().find(R"(finished_reason="abort",model_name="fake"} 5)") !=
        std::string::npos);
}

TEST_CASE_METHOD(api_fixture, "fields reach the sampler and deadlines the router") {
  answer_with("ok");
  const json body = with(
      hello, {{"temperature", 0.5},
              {"top_p", 0.9},
              {"top_k", 7},
              {"min_p", 0.1},
              {"seed", -1},
              {"repetition_penalty", 1.1},
              {"presence_penalty", 1},
              {"frequency_penalty", -1},
              {"max_tokens", 3},
              {"max_completion_tokens", 9},
              {"min_tokens", 2},
              {"ignore_eos", true},
              {"stop", {"a", "b"}},
              {"stop_token_ids", {1, 2}},
              {"logit_bias", {{"5", -100}}},
              {"skip_special_tokens", false},
              {"priority", -3},
              {"response_format",
               {{"type", "json_schema"}, {"json_schema", {{"schema", {{"type", "object"}}}}}}}});
  CHECK(post("/v1/chat/completions", body, {{"X-SLO-TTFT-MS", "150"}, {"x-slo-tpot-ms", "20.5"}})
            ->reply.status == 200);
  const auto& r = service.requests.at(0);
  CHECK(r.params.temperature == 0.5F);
  CHECK(r.params.top_p == 0.9F);
  CHECK(r.params.top_k == 7);
  CHECK(r.params.min_p == 0.1F);
  CHECK(r.params.seed == ~std::uint64_t{0});
  CHECK(r.params.repetition_penalty == 1.1F);
  CHECK(r.params.presence_penalty == 1.0F);
  CHECK(r.params.frequency_penalty == -1.0F);
  CHECK(r.params.max_tokens == 9);
  CHECK(r.params.min_tokens == 2);
  CHECK(r.params.ignore_eos);
  CHECK(r.stop == std::vector<std::string>{"a", "b"});
  CHECK(r.params.stop_ids == std::vector<compute::token_id>{1, 2});
  CHECK(r.params.logit_bias == std::vector<std::pair<compute::token_id, float>>{{5, -100.0F}});
  CHECK_FALSE(r.skip_special_tokens);
  CHECK(r.priority == -3);
  CHECK(json_of(r.params.grammar) == json({{"type", "object"}}));
  CHECK(r.ttft_deadline_ms == 150);
  CHECK(r.tpot_deadline_ms == 20.5);
}

TEST_CASE_METHOD(api_fixture, "requests without a seed draw different ones") {
  answer_with("ok");
  post("/v1/chat/completions", hello);
  post("/v1/chat/completions", hello);
  CHECK(service.requests[0].params.seed != service.requests[1].params.seed);
}

TEST_CASE_METHOD(api_fixture, "unknown fields are accepted and logged once") {
  answer_with("ok");
  for (int i = 0; i < 2; ++i)
    CHECK(post("/v1/chat/completions", with(hello, {{"made_up", 1}}))->reply.status == 200);
  REQUIRE(log.size() == 1);
  CHECK(log[0].find("made_up") != std::string::npos);
}
