// What `hexgen bench` is told, in vLLM's spelling.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace hexgen::tools {

struct bench_options {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::string model; // empty: the server's first
  std::string api_key;
  int num_prompts = 100;
  double request_rate = std::numeric_limits<double>::infinity(); // per second; inf: at once
  double burstiness = 1;                                         // 1: Poisson; else gamma
  int max_concurrency = 0;                                       // 0: no limit
  int input_len = 128;
  int output_len = 64;
  double range_ratio = 0;                   // lengths uniform in len x [1 - r, 1 + r]
  int prefix_len = 0;                       // first tokens that all prompts share, beside input_len
  int lowest_id = 1000, highest_id = 30000; // token ids of random prompts, both included
  std::uint64_t seed = 0;
  double temperature = 0;
  bool ignore_eos = true;
  int warmups = 0;
  double timeout_s = 600;                   // of one request
  std::map<std::string, double> goodput_ms; // ttft, tpot, e2el: deadlines
  double slo_ttft_ms = 0, slo_tpot_ms = 0;  // sent with each request; 0: not
  std::vector<double> percentiles = {50, 90, 95, 99};
  bool json = false;
  std::string result_file;
  bool help = false;
};

/// Flags without the verb; each has an environment twin (--num-prompts: HEXGEN_BENCH_NUM_PROMPTS)
/// that the flag wins over. Throws std::invalid_argument naming the flag.
[[nodiscard]] bench_options parse_bench_options(const std::vector<std::string>& arguments);
[[nodiscard]] std::string bench_help();

} // namespace hexgen::tools
