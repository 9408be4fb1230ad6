#include "actors/metrics/serving_metrics.hpp"
#include "tests/catch.hpp"

using hexgen::actors::serving_metrics;

namespace {

bool has(const std::string& text, const std::string& line) {
  return text.find(line + "\n") != std::string::npos;
}

} // namespace

TEST_CASE("metrics carry vLLM's names, labels and buckets") {
  serving_metrics metrics("m");
  metrics.submitted(1, 2, 64);
  metrics.first_token(0.03, 0.01);
  metrics.inter_token(0.04, 2); // two tokens in one delivery: 20 ms each
  metrics.tokens(10, 3);
  metrics.prefix_cache(10, 4);
  const auto busy = metrics.text();
  const std::string labels = R"({engine="0",model_name="m"})";
  CHECK(has(busy, "vllm:num_requests_running" + labels + " 1"));
  CHECK(has(busy, "vllm:num_requests_waiting" + labels + " 0"));
  serving_metrics::finished end;
  end.saw_first_token = true;
  end.e2e_s = 0.4;
  end.queued_s = 0.2;
  end.reason = "stop";
  end.prompt_tokens = 10;
  end.generated_tokens = 3;
  end.longest_choice = 2;
  end.ttft_slo = 1;
  end.tpot_slo = 0;
  metrics.done(end);
  const auto text = metrics.text();
  CHECK(has(text, "vllm:num_requests_running" + labels + " 0"));
  CHECK(has(text, "vllm:prompt_tokens_total" + labels + " 10"));
  CHECK(has(text, "vllm:generation_tokens_total" + labels + " 3"));
  CHECK(has(text, "vllm:prefix_cache_hits_total" + labels + " 4"));
  CHECK(has(text,
            R"(vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 1)"));
  const auto bucket = [&](const char* name, const char* le, int count) {
    return has(text, std::string(name) + R"(_bucket{engine="0",model_name="m",le=")" + le + "\"} " +
                         std::to_string(count));
  };
  CHECK(bucket("vllm:time_to_first_token_seconds", "0.02", 0));
  CHECK(bucket("vllm:time_to_first_token_seconds", "0.04", 1));
  CHECK(bucket("vllm:time_to_first_token_seconds", "2560", 1));
  CHECK(bucket("vllm:inter_token_latency_seconds", "0.01", 0));
  CHECK(bucket("vllm:inter_token_latency_seconds", "0.025", 2));
  CHECK(bucket("vllm:e2e_request_latency_seconds", "0.5", 1));
  CHECK(bucket("vllm:request_inference_time_seconds", "0.3", 1));
  CHECK(bucket("vllm:request_queue_time_seconds", "0.3", 1));
  CHECK(bucket("hexgen:queued_us", "3000", 0));
  CHECK(bucket("hexgen:queued_us", "10000", 1));
  CHECK(bucket("vllm:request_prefill_time_seconds", "0.3", 1));
  CHECK(bucket("vllm:request_max_num_generation_tokens", "1", 0));
  CHECK(bucket("vllm:request_max_num_generation_tokens", "2", 1));
  CHECK(bucket("vllm:request_params_n", "1", 0));
  CHECK(bucket("vllm:request_params_n", "2", 1));
  CHECK(has(text, R"(hexgen:slo_attained_total{engine="0",model_name="m",slo="ttft"} 1)"));
  CHECK(has(text, R"(hexgen:slo_attained_total{engine="0",model_name="m",slo="tpot"} 0)"));
  CHECK(has(text, R"(hexgen:slo_requests_total{engine="0",model_name="m",slo="tpot"} 1)"));
}

TEST_CASE("metrics of refused requests count as missed deadlines") {
  serving_metrics metrics("m");
  metrics.submitted(1, 1, 1);
  metrics.refused(429, true, false);
  const auto text = metrics.text();
  CHECK(has(text, R"(vllm:num_requests_waiting{engine="0",model_name="m"} 0)"));
  CHECK(has(text, R"(hexgen:requests_refused_total{engine="0",model_name="m",status="429"} 1)"));
  CHECK(has(text, R"(hexgen:slo_requests_total{engine="0",model_name="m",slo="ttft"} 1)"));
  CHECK(text.find("slo=\"tpot\"") == std::string::npos);
}

TEST_CASE("clients cannot make metric labels") {
  serving_metrics metrics("m");
  for (int i = 0; i < 100; ++i)
    metrics.http_request("/made/up/" + std::to_string(i), "BREW", 404);
  metrics.http_request("/v1/models", "GET", 200);
  const auto text = metrics.text();
  CHECK(has(text, R"(http_requests_total{handler="other",method="other",status="404"} 100)"));
  CHECK(has(text, R"(http_requests_total{handler="/v1/models",method="GET",status="200"} 1)"));
  CHECK(text.find("/made/up") == std::string::npos);
}
