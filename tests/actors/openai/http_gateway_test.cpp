// The API on a real port: events as bytes on a connection, hang-ups as cancels.
#include "actors/openai/http_gateway.hpp"
#include "tests/actors/openai/fake_service.hpp"
#include "tests/catch.hpp"
#include "tests/transport/http/http_client.hpp"

#include <thread>

using namespace hexgen;
using namespace hexgen::tests;
using namespace std::chrono_literals;

namespace {

struct gateway_fixture {
  fake_service service;
  actors::serving_metrics metrics{"fake"};
  actors::openai_api api;
  actors::http_gateway gateway;

  explicit gateway_fixture(std::string key = {}, std::chrono::milliseconds ping = 10000ms)
      : api(with_key(std::move(key)), service, metrics), gateway(any_port(), api, metrics, ping) {}

  static actors::api_options with_key(std::string key) {
    actors::api_options options;
    options.api_key = std::move(key);
    return options;
  }
  static transport::http_options any_port() {
    transport::http_options options;
    options.port = 0;
    return options;
  }
  static std::string post(const std::string& body, const std::string& more = {}) {
    return "POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + more +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  template <class F>
  bool eventually(F holds) {
    for (int i = 0; i < 2000; ++i) {
      {
        const std::lock_guard lock(service.mutex);
        if (holds())
          return true;
      }
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
};

const std::string stream_body = R"({"prompt":"x","stream":true})";

} // namespace

TEST_CASE("a completion streams as server-sent events over HTTP") {
  gateway_fixture f;
  http_client client(f.gateway.port());
  client.send(gateway_fixture::post(stream_body));
  REQUIRE(f.eventually([&] { return f.service.requests.size() == 1; }));
  f.service.say(1, "he", 1);
  const auto first = client.read_until("}\n\n");
  CHECK(first.find("HTTP/1.1 200 OK") == 0);
  CHECK(first.find("Content-Type: text/event-stream") != std::string::npos);
  CHECK(first.find("Cache-Control: no-cache") != std::string::npos);
  CHECK(first.find("x-request-id: cmpl-") != std::string::npos);
  CHECK(first.find(R"("text":"he")") != std::string::npos);
  f.service.say(1, "llo", 2, "stop");
  CHECK(client.read_until("data: [DONE]\n\n").find(R"("finish_reason":"stop")") !=
        std::string::npos);
  CHECK(f.metrics.text().find(
            R"(http_requests_total{handler="/v1/completions",method="POST",status="200"} 1)") !=
        std::string::npos);
}

TEST_CASE("an HTTP client that hangs up cancels, stream or not") {
  gateway_fixture f;
  for (const bool stream : {true, false}) {
    const auto before = f.service.cancelled.size();
    http_client client(f.gateway.port());
    client.send(gateway_fixture::post(stream ? stream_body : R"({"prompt":"x"})"));
    REQUIRE(f.eventually([&] { return f.service.requests.size() == before + 1; }));
    if (stream) {
      f.service.say(before + 1, "a", 1);
      client.read_until("}\n\n");
    }
    client.close();
    CHECK(f.eventually([&] { return f.service.cancelled.size() == before + 1; }));
    CHECK(f.eventually([&] { return f.api.running() == 0; }));
  }
}

TEST_CASE("a patient client of a slow first token gets its head and pings") {
  gateway_fixture f({}, 30ms);
  http_client client(f.gateway.port());
  client.send(gateway_fixture::post(stream_body));
  const auto head = client.read_until(": ping\n\n");
  CHECK(head.find("HTTP/1.1 200 OK") == 0);
  CHECK(head.find("x-request-id: cmpl-") != std::string::npos);
  // Too late for a status: the refusal becomes a frame.
  f.service.refuse(1, {503, "", "no pipeline", 1});
  const auto rest = client.read_until("data: [DONE]\n\n");
  CHECK(rest.find(R"(data: {"error":{"message":"no pipeline")") != std::string::npos);
}

TEST_CASE("without the key a body is not even read") {
  gateway_fixture f("secret");
  http_client stranger(f.gateway.port());
  stranger.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n{");
  CHECK(stranger.read_all().find("HTTP/1.1 401 ") == 0);
  http_client probe(f.gateway.port());
  probe.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(probe.read_until("}").find("HTTP/1.1 200 ") == 0);
  http_client friendly(f.gateway.port());
  friendly.send(gateway_fixture::post("{}", "Authorization: Bearer secret\r\n"));
  CHECK(friendly.read_until("}}").find("prompt is missing") != std::string::npos);
}

TEST_CASE("a full queue is said with Retry-After over HTTP") {
  gateway_fixture f;
  f.service.on_submit = [&](std::uint64_t ticket, const actors::generation_request&) {
    f.service.refuse(ticket, {429, "", "full", 2});
  };
  http_client client(f.gateway.port());
  client.send(gateway_fixture::post(stream_body));
  const auto reply = client.read_until("}}");
  CHECK(reply.find("HTTP/1.1 429 Too Many Requests") == 0);
  CHECK(reply.find("Retry-After: 2") != std::string::npos);
}
