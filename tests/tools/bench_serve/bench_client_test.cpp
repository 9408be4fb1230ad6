// The load generator against the real gateway over a fake service.
#include "actors/openai/http_gateway.hpp"
#include "tests/actors/openai/fake_service.hpp"
#include "tests/catch.hpp"
#include "tools/bench_serve/bench_client.hpp"

using namespace hexgen;
using namespace hexgen::tools;

namespace {

struct endpoint {
  tests::fake_service service;
  actors::serving_metrics metrics{"fake"};
  actors::openai_api api{{}, service, metrics};
  actors::http_gateway gateway{any_port(), api, metrics};

  static transport::http_options any_port() {
    transport::http_options options;
    options.port = 0;
    return options;
  }
  bench_options options() {
    bench_options o;
    o.port = gateway.port();
    o.num_prompts = 12;
    o.input_len = 6;
    o.output_len = 4;
    o.lowest_id = 1;
    o.highest_id = 200;
    o.model = first_model(o);
    return o;
  }
  bench_run run(const bench_options& o) {
    return run_workload(o, make_workload(o, o.num_prompts, 0), {});
  }
};

} // namespace

TEST_CASE("bench measures every answer of an endpoint") {
  endpoint at;
  at.service.on_submit = [&](std::uint64_t ticket, const actors::generation_request& r) {
    CHECK(r.prompt.size() == 6);
    CHECK(r.params.max_tokens == 4);
    CHECK(r.params.ignore_eos);
    for (int i = 1; i <= 4; ++i)
      at.service.say(ticket, "x", i, i == 4 ? "length" : "");
    at.service.drop(ticket);
  };
  auto options = at.options();
  CHECK(options.model == "fake");
  options.max_concurrency = 3;
  const auto run = at.run(options);
  REQUIRE(run.records.size() == 12);
  for (const auto& one : run.records) {
    CHECK(one.ok);
    CHECK(one.output_tokens == 4);
    CHECK(one.prompt_tokens == 5); // as the fake says
    CHECK(one.inter_token_s.size() == 3);
    CHECK(one.e2el_s >= one.ttft_s);
  }
  CHECK(make_report(run.records, run.duration_s, options).peak_concurrency <= 3);
  CHECK(at.service.requests.size() == 12);
}

TEST_CASE("bench tells refusals, error frames and silence apart") {
  endpoint at;
  int i = 0;
  at.service.on_submit = [&](std::uint64_t ticket, const actors::generation_request&) {
    switch (i++ % 3) {
    case 0:
      return at.service.refuse(ticket, {429, "", "full", 1});
    case 1: {
      at.service.say(ticket, "x", 1);
      actors::generation_event broken;
      broken.error_status = 500;
      broken.error_message = "lost";
      at.service.play(ticket, broken);
      return at.service.drop(ticket);
    }
    default:
      return; // never answered
    }
  };
  auto options = at.options();
  options.num_prompts = 3;
  options.max_concurrency = 1;
  options.timeout_s = 0.05;
  const auto run = at.run(options);
  REQUIRE(run.records.size() == 3);
  CHECK(run.records[0].error == "HTTP 429: full");
  CHECK(run.records[1].error.find("error frame: lost") == 0);
  CHECK(run.records[2].error == "timed out");
  const auto report = make_report(run.records, run.duration_s, options);
  CHECK(report.completed == 0);
  CHECK(report.failed == 3);
}

TEST_CASE("bench says when nothing listens") {
  bench_options options;
  {
    endpoint at;
    options.port = at.gateway.port();
  }
  CHECK_THROWS_AS(first_model(options), std::runtime_error);
}
