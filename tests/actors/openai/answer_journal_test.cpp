// Answers that outlive their connection, and their gateway.
#include "actors/openai/answer_journal.hpp"
#include "tests/actors/openai/api_fixture.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace hexgen;
using namespace hexgen::tests;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

struct folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("hexgen-journal-" + std::to_string(::getpid()));
  folder() { std::filesystem::remove_all(path); }
  ~folder() { std::filesystem::remove_all(path); }
};

const json asked = {{"prompt", "x"}, {"stream", true}};

/// A gateway's life over the journal in `at`.
struct life {
  fake_service service;
  actors::serving_metrics metrics{"fake"};
  actors::openai_api api;

  explicit life(const folder& at, std::chrono::steady_clock::duration keep = 10min)
      : api(options(at, keep), service, metrics) {}
  static actors::api_options options(const folder& at, std::chrono::steady_clock::duration keep) {
    actors::api_options o;
    o.journal = std::make_shared<actors::answer_journal>(at.path.string(), keep);
    return o;
  }
  std::shared_ptr<recorded_sink> ask(const std::string& name, const std::string& last = {},
                                     const json& body = asked) {
    auto sink = std::make_shared<recorded_sink>();
    transport::http_headers headers = {{"x-request-id", name}};
    if (!last.empty())
      headers.emplace_back("last-event-id", last);
    api.handle({"POST", "/v1/completions", body.dump(), std::move(headers)}, sink);
    return sink;
  }
};

std::string text_of(const recorded_sink& sink) {
  std::string text;
  for (const auto& p : sink.payloads)
    if (p != "[DONE]")
      text += json_of(p).at("choices")[0].at("text").get<std::string>();
  return text;
}

} // namespace

TEST_CASE("who returns gets the rest of an answer, once") {
  const folder at;
  life gateway(at);
  const auto first = gateway.ask("r1");
  gateway.service.say(1, "a", 1);
  gateway.service.say(1, "b", 2);
  CHECK(first->ids == std::vector<std::uint64_t>{1, 2});
  first->hang_up();
  CHECK(gateway.service.cancelled.empty()); // somebody may return
  gateway.service.say(1, "c", 3);
  const auto second = gateway.ask("r1", "1"); // the second one did not arrive
  CHECK(gateway.service.requests.size() == 1);
  CHECK(text_of(*second) == "bc");
  gateway.service.say(1, "d", 4, "stop");
  CHECK(text_of(*second) == "bcd");
  CHECK(second->ids == std::vector<std::uint64_t>{2, 3, 4, 5});
  CHECK(second->payloads.back() == "[DONE]");
  CHECK(second->closed);
  CHECK(text_of(*first) == "ab");
  const auto third = gateway.ask("r1", "3");
  CHECK(text_of(*third) == "d");
  CHECK(third->closed);
  CHECK(gateway.service.requests.size() == 1);
}

TEST_CASE("only the last connection of an answer is served") {
  const folder at;
  life gateway(at);
  const auto first = gateway.ask("r1");
  gateway.service.say(1, "a", 1);
  const auto second = gateway.ask("r1", "1"); // the first hangs, unnoticed
  CHECK(first->closed);
  gateway.service.say(1, "b", 2, "stop");
  CHECK(text_of(*first) == "a");
  CHECK(text_of(*second) == "b");
  first->hang_up(); // of no consequence now
  CHECK(gateway.service.cancelled.empty());
}

TEST_CASE("an answer outlives its gateway: what was sent is not sampled again") {
  const folder at;
  std::uint64_t seed = 0;
  std::string id;
  {
    life gateway(at);
    const auto sink = gateway.ask("r1");
    seed = gateway.service.requests[0].params.seed;
    gateway.service.say(1, "a", 1);
    actors::generation_event half; // a stop string's half is held back, its token is not lost
    half.text = "b";
    half.taken = {'b', 'E'};
    half.completion_tokens = 3;
    gateway.service.play(1, half);
    id = json_of(sink->payloads[0]).at("id");
  }
  life gateway(at);
  const auto rest = gateway.ask("r1", "1");
  REQUIRE(gateway.service.requests.size() == 1);
  CHECK(gateway.service.requests[0].params.seed == seed);
  CHECK(gateway.service.requests[0].emitted == std::vector<compute::token_id>{'a', 'b', 'E'});
  CHECK(text_of(*rest) == "b");
  gateway.service.say(1, "Ed", 4, "stop");
  CHECK(text_of(*rest) == "bEd");
  CHECK(json_of(rest->payloads[1]).at("id") == id);
  CHECK(rest->ids == std::vector<std::uint64_t>{2, 3, 4});
  CHECK(rest->closed);
}

TEST_CASE("an answer whose gateway died before the last word only lacks that") {
  const folder at;
  {
    life gateway(at);
    gateway.ask("r1");
    gateway.service.say(1, "ab", 2, "stop");
  }
  const auto file = at.path / "r1.answer";
  std::string text((std::istreambuf_iterator<char>(std::ifstream(file).rdbuf())), {});
  REQUIRE(text.find("[DONE]") != std::string::npos);
  // It died while it wrote that.
  std::filesystem::resize_file(file, text.find("[DONE]") + 3);
  life gateway(at);
  const auto rest = gateway.ask("r1", "1");
  CHECK(gateway.service.requests.empty());
  CHECK(rest->payloads == std::vector<std::string>{"[DONE]"});
  CHECK(rest->closed);
}

TEST_CASE("what cannot be returned to is refused") {
  const folder at;
  life gateway(at);
  gateway.ask("r1");
  gateway.service.say(1, "a", 1);
  CHECK(error_of(*gateway.ask("r2", "1"), 404).at("message").get<std::string>().find("r2") !=
        std::string::npos);
  error_of(*gateway.ask("r1", "2"), 400);
  error_of(*gateway.ask("r1", "x"), 400);
  error_of(*gateway.ask("r1", "1", {{"prompt", "y"}, {"stream", true}}), 409);
  std::string why;
  try {
    const actors::answer_journal second(at.path.string(), 1s);
  } catch (const std::exception& e) {
    why = e.what();
  }
  CHECK(why.find("in use by another gateway") != std::string::npos);
  api_fixture without;
  error_of(*without.post("/v1/completions", asked, {{"x-request-id", "r"}, {"last-event-id", "1"}}),
           404);
}

TEST_CASE("an answer that nobody returned to is given up") {
  const folder at;
  life gateway(at, 0s);
  const auto sink = gateway.ask("r1");
  gateway.service.say(1, "a", 1);
  gateway.ask("r2"); // while somebody listens it stays
  CHECK(gateway.service.cancelled.empty());
  sink->hang_up();
  error_of(*gateway.ask("r1", "1"), 404);
  CHECK(gateway.service.cancelled == std::vector<std::uint64_t>{1});
  CHECK_FALSE(std::filesystem::exists(at.path / "r1.answer"));
}

TEST_CASE("a refused request leaves nothing") {
  const folder at;
  life gateway(at);
  const auto sink = gateway.ask("r1");
  gateway.service.refuse(1, {503, "unavailable", "nothing serves", 1});
  CHECK(sink->reply.status == 503);
  CHECK_FALSE(std::filesystem::exists(at.path / "r1.answer"));
  error_of(*gateway.ask("r1", "1"), 404);
}
