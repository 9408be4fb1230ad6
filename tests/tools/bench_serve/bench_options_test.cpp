#include "tests/catch.hpp"
#include "tools/bench_serve/bench_options.hpp"

#include <cmath>
#include <cstdlib>
#include <stdexcept>

using namespace hexgen::tools;

TEST_CASE("bench flags are vLLM's") {
  const auto o = parse_bench_options({"--url",
                                      "http://[::1]:9000/v1",
                                      "--num-prompts=7",
                                      "--request-rate",
                                      "2.5",
                                      "--input-len",
                                      "8",
                                      "--random-output-len",
                                      "4",
                                      "--goodput",
                                      "ttft:100",
                                      "tpot:20",
                                      "--percentiles",
                                      "50,99.9",
                                      "--no-ignore-eos",
                                      "--slo-ttft-ms",
                                      "90",
                                      "--token-ids",
                                      "5:6",
                                      "--json"});
  CHECK(o.host == "::1");
  CHECK(o.port == 9000);
  CHECK(o.num_prompts == 7);
  CHECK(o.request_rate == 2.5);
  CHECK(o.input_len == 8);
  CHECK(o.output_len == 4);
  CHECK(o.goodput_ms.at("ttft") == 90); // the later flag wins
  CHECK(o.goodput_ms.at("tpot") == 20);
  CHECK(o.slo_ttft_ms == 90);
  CHECK(o.percentiles == std::vector<double>{50, 99.9});
  CHECK_FALSE(o.ignore_eos);
  CHECK(o.json);
  CHECK(std::isinf(parse_bench_options({"--request-rate", "inf"}).request_rate));
  CHECK(parse_bench_options({"--base-url", "http://h"}).port == 80);
}

TEST_CASE("bench flags that are wrong are named") {
  const std::vector<std::vector<std::string>> wrong = {
      {"--nonsense"},
      {"--num-prompts"},
      {"--num-prompts", "0"},
      {"--num-prompts", "1.5"},
      {"--num-prompts", "x"},
      {"--request-rate", "0"},
      {"--request-rate", "nan"},
      {"--goodput", "speed:1"},
      {"--goodput", "ttft"},
      {"--base-url", "https://h"},
      {"--base-url", "http://h:99999"},
      {"--base-url", "http://"},
      {"--percentiles", "101"},
      {"--token-ids", "9:1"},
      {"--token-ids", "9"},
  };
  for (const auto& arguments : wrong)
    CHECK_THROWS_AS(parse_bench_options(arguments), std::invalid_argument);
}

TEST_CASE("bench flags have environment twins that they win over") {
  setenv("HEXGEN_BENCH_NUM_PROMPTS", "33", 1);
  CHECK(parse_bench_options({}).num_prompts == 33);
  CHECK(parse_bench_options({"--num-prompts", "5"}).num_prompts == 5);
  unsetenv("HEXGEN_BENCH_NUM_PROMPTS");
}

TEST_CASE("every bench flag is in the help text") {
  const auto help = bench_help();
  for (const char* name :
       {"--base-url", "--url", "--burstiness", "--goodput", "--warmups", "--json"})
    CHECK(help.find(name) != std::string::npos);
}
