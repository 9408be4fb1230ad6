#include "tests/catch.hpp"
#include "tools/bench_serve/bench_report.hpp"

#include <nlohmann/json.hpp>

using namespace hexgen::tools;

namespace {

bench_record answered(double start_s, double ttft_s, double e2el_s, int tokens) {
  bench_record record;
  record.ok = true;
  record.start_s = start_s;
  record.ttft_s = ttft_s;
  record.e2el_s = e2el_s;
  record.prompt_tokens = 10;
  record.output_tokens = tokens;
  for (int i = 1; i < tokens; ++i)
    record.inter_token_s.push_back((e2el_s - ttft_s) / (tokens - 1));
  return record;
}

} // namespace

TEST_CASE("percentiles lie between their neighbours as numpy's do") {
  const std::vector<double> v = {1, 2, 3, 4};
  CHECK(percentile(v, 0) == 1);
  CHECK(percentile(v, 50) == 2.5);
  CHECK(percentile(v, 99) == Approx(3.97));
  CHECK(percentile(v, 100) == 4);
  CHECK(percentile({}, 50) == 0);
}

TEST_CASE("a bench report follows vLLM's definitions") {
  bench_options options;
  options.goodput_ms = {{"ttft", 150}, {"tpot", 100}};
  bench_record refused;
  refused.error = "HTTP 429";
  const auto report = make_report({answered(0, 0.1, 1.0, 10),  // tpot 100 ms: meets both
                                   answered(0.5, 0.2, 0.2, 1), // one token: tpot 0; late
                                   refused},
                                  2.0, options);
  CHECK(report.completed == 2);
  CHECK(report.failed == 1);
  CHECK(report.errors.at("HTTP 429") == 1);
  CHECK(report.output_tokens == 11);
  CHECK(report.peak_concurrency == 2);
  CHECK(report.within_deadlines == 1);
  CHECK(report.milliseconds.at("ttft").mean == Approx(150));
  CHECK(report.milliseconds.at("tpot").mean == Approx(50));
  CHECK(report.milliseconds.at("itl").median == Approx(100));
  CHECK(report.milliseconds.at("e2el").percentiles.at(99) == Approx(992));
  const auto j = nlohmann::json::parse(report_json(report, options));
  CHECK(j.at("output_throughput").get<double>() == Approx(5.5));
  CHECK(j.at("total_token_throughput").get<double>() == Approx(15.5));
  CHECK(j.at("request_goodput").get<double>() == Approx(0.5));    // req/s
  CHECK(j.at("slo_attainment").get<double>() == Approx(1.0 / 3)); // share; the refused one missed
  CHECK(j.at("p99_e2el_ms").get<double>() == Approx(992));
  CHECK(j.at("request_rate") == "inf");
  CHECK(report_text(report, options).find("P99 TTFT (ms):") != std::string::npos);
}

TEST_CASE("a bench report of nothing divides by nothing") {
  const auto report = make_report({}, 0, {});
  CHECK(nlohmann::json::parse(report_json(report, {})).at("output_throughput") == 0);
}
