// The paths beside generation: models, health, tokens, keys, methods.
#include "actors/openai/api_key.hpp"
#include "tests/actors/openai/api_fixture.hpp"

using namespace hexgen;
using namespace hexgen::tests;
using nlohmann::json;

TEST_CASE_METHOD(api_fixture, "models are listed with id and root") {
  const auto list = json_of(call("GET", "/v1/models")->reply.body);
  CHECK(list.at("object") == "list");
  REQUIRE(list.at("data").size() == 2);
  CHECK(list.at("data")[0].at("id") == "fake");
  CHECK(list.at("data")[0].at("root") == "fake");
  CHECK(list.at("data")[0].at("created") == 1700000000);
  CHECK(list.at("data")[0].at("max_model_len") == 512);
  CHECK(list.at("data")[1].at("id") == "alias");
  CHECK(json_of(call("GET", "/v1/models/fake")->reply.body).at("id") == "fake");
  CHECK(error_of(*call("GET", "/v1/models/nope"), 404).at("code") == "model_not_found");
}

TEST_CASE_METHOD(api_fixture, "an unknown model, path or method is said so") {
  const auto sink =
      post("/v1/chat/completions",
           {{"model", "gpt-9"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}});
  const auto error = error_of(*sink, 404);
  CHECK(error.at("code") == "model_not_found");
  CHECK(error.at("param") == "model");
  error_of(*call("GET", "/v2/nothing"), 404);
  const auto wrong = call("GET", "/v1/completions");
  error_of(*wrong, 405);
  CHECK(*transport::find_header(wrong->reply.headers, "Allow") == "POST");
  error_of(*call("DELETE", "/v1/models"), 405);
}

TEST_CASE_METHOD(api_fixture, "health follows the service, and ends with the drain") {
  CHECK(call("GET", "/health")->reply.status == 200);
  service.missing = "waits for 1 more device";
  const auto sink = call("GET", "/health");
  CHECK(error_of(*sink, 503).at("message") == "waits for 1 more device");
  CHECK(transport::find_header(sink->reply.headers, "Retry-After") != nullptr);
  service.missing.clear();
  api.drain();
  error_of(*call("GET", "/health"), 503);
  error_of(*post("/v1/completions", {{"prompt", "x"}}), 503);
  CHECK(service.requests.empty());
}

TEST_CASE_METHOD(api_fixture, "without a model requests get 503 and the list is empty") {
  service.served = nullptr;
  service.missing = "no agent";
  error_of(*post("/v1/completions", {{"prompt", "x"}}), 503);
  error_of(*post("/tokenize", {{"prompt", "x"}}), 503);
  CHECK(json_of(call("GET", "/v1/models")->reply.body).at("data").empty());
}

TEST_CASE_METHOD(api_fixture, "tokenize and detokenize speak vLLM's form and llama-server's") {
  auto reply =
      json_of(post("/tokenize", {{"prompt", "ab"}, {"return_token_strs", true}})->reply.body);
  CHECK(reply.at("tokens") == json({256, 97, 98}));
  CHECK(reply.at("count") == 3);
  CHECK(reply.at("max_model_len") == 512);
  CHECK(reply.at("token_strs") == json({"<s>", "a", "b"}));
  reply = json_of(post("/tokenize", {{"prompt", "a"}, {"add_special_tokens", false}})->reply.body);
  CHECK(reply.at("tokens") == json::array({97}));
  reply = json_of(
      post("/tokenize", {{"messages", {{{"role", "user"}, {"content", "x"}}}}})->reply.body);
  CHECK(reply.at("count") == 5 + 1 + 1 + 10);
  reply = json_of(post("/tokenize", {{"content", "ab"}})->reply.body);
  CHECK(reply == json({{"tokens", {97, 98}}}));
  reply = json_of(post("/tokenize", {{"content", "a"}, {"with_pieces", true}})->reply.body);
  CHECK(reply.at("tokens")[0] == json({{"id", 97}, {"piece", "a"}}));
  reply = json_of(post("/detokenize", {{"tokens", {97, 98}}})->reply.body);
  CHECK(reply.at("prompt") == "ab");
  CHECK(reply.at("content") == "ab");
  CHECK(error_of(*post("/detokenize", {{"tokens", {97, 999}}}), 400).at("param") == "tokens");
  CHECK(error_of(*post("/detokenize", {{"tokens", "97"}}), 400).at("param") == "tokens");
  CHECK(error_of(*post("/tokenize", json::object()), 400).at("param") == "prompt");
  CHECK(error_of(*post("/tokenize", {{"prompt", 5}}), 400).at("param") == "prompt");
}

TEST_CASE_METHOD(api_fixture, "metrics, version, cluster and pages are served") {
  const auto metrics_text = call("GET", "/metrics")->reply.body;
  CHECK(metrics_text.find("vllm:num_requests_running") != std::string::npos);
  CHECK(metrics_text.find("hexgen:fake 1") != std::string::npos);
  CHECK(json_of(call("GET", "/version")->reply.body).at("version") == "0.1.0");
  CHECK(json_of(call("GET", "/cluster")->reply.body).at("epoch") == 7);
  CHECK(json_of(call("GET", "/openapi.json")->reply.body).at("openapi") == "3.0.3");
  const auto page = call("GET", "/");
  CHECK(page->reply.content_type.rfind("text/html", 0) == 0);
  CHECK(page->reply.body.find("<title>Hexgen</title>") != std::string::npos);
}

TEST_CASE("the API key guards every path but health") {
  fake_service service;
  actors::serving_metrics metrics("fake");
  actors::api_options options;
  options.api_key = "secret";
  actors::openai_api api(options, service, metrics);
  for (const char* path : {"/v1/models", "/metrics", "/cluster", "/tokenize", "/", "/nothing"}) {
    const auto refusal = api.check_key("GET", path, {});
    REQUIRE(refusal);
    CHECK(refusal->status == 401);
    CHECK(json_of(refusal->body).at("error").at("type") == "authentication_error");
    CHECK(api.check_key("GET", path, {{"authorization", "Bearer wrong!"}}));
    CHECK_FALSE(api.check_key("GET", path, {{"authorization", "Bearer secret"}}));
  }
  CHECK_FALSE(api.check_key("GET", "/health", {}));
  // "x:secret"; a browser may read with it, not write.
  CHECK_FALSE(api.check_key("GET", "/", {{"Authorization", "Basic eDpzZWNyZXQ="}}));
  CHECK(api.check_key("POST", "/tokenize", {{"Authorization", "Basic eDpzZWNyZXQ="}}));
}

TEST_CASE("API keys are compared whole") {
  using actors::has_key;
  CHECK(has_key("Bearer k", "k", false));
  CHECK(has_key("bearer   k", "k", false));
  for (const char* no :
       {"", "k", "Bearer", "Bearer ", "Bearer kk", "Bearer K", "Basic k", "Bearerk"})
    CHECK_FALSE(has_key(no, "k", true));
  CHECK(has_key("Basic YTprZXk=", "key", true)); // a:key
  CHECK_FALSE(has_key("Basic YTprZXk=", "key", false));
  CHECK_FALSE(has_key("Basic a2V5", "key", true)); // no colon
}
