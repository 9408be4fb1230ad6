#include "actors/metrics/serving_metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <sstream>

namespace hexgen::actors {

namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using buckets = Histogram::BucketBoundaries;

// vLLM's buckets (vllm/v1/metrics/loggers.py).
const buckets ttft_s = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                        1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const buckets inter_token_s = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                               .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const buckets request_s = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                           30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const buckets token_counts = {1,   2,    5,    10,   20,    50,    100,   200,
                              500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
const buckets queued_us = {100, 300, 1000, 3000, 10000, 30000, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7};
const buckets n_counts = {1, 2, 5, 10, 20};

} // namespace

struct serving_metrics::impl {
  prometheus::Registry registry;
  prometheus::Labels labels;

  Histogram& histogram(const char* name, const char* help, const buckets& bounds) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels,
                                                                                     bounds);
  }
  Counter& counter(const char* name, const char* help) { return counters(name, help).Add(labels); }
  Family<Counter>& counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
  }
  Counter& labelled(Family<Counter>& family, const char* key, std::string_view value) {
    auto all = labels;
    all[key] = std::string(value);
    return family.Add(all); // the same counter for the same labels
  }

  void slo(const char* name, int met) {
    if (met < 0)
      return;
    labelled(slo_all, "slo", name).Increment();
    labelled(slo_met, "slo", name).Increment(met);
  }

  explicit impl(std::string model) : labels{{"model_name", std::move(model)}, {"engine", "0"}} {
    for (const char* reason : {"stop", "length", "abort", "error"})
      labelled(success, "finished_reason", reason);
  }

  Gauge& running = gauge("vllm:num_requests_running", "Requests that have had a token.");
  Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests without a token so far.");
  Counter& prompt_tokens = counter("vllm:prompt_tokens_total", "Prompt tokens taken in.");
  Counter& generation_tokens = counter("vllm:generation_tokens_total", "Tokens generated.");
  Counter& prefix_queries =
      counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  Counter& prefix_hits =
      counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.");
  Family<Counter>& success = counters("vllm:request_success_total", "Requests ended, by reason.");
  Histogram& ttft = histogram("vllm:time_to_first_token_seconds", "Time to first token.", ttft_s);
  Histogram& itl =
      histogram("vllm:inter_token_latency_seconds", "Time between tokens.", inter_token_s);
  Histogram& tpot = histogram("vllm:time_per_output_token_seconds",
                              "Time between tokens, under its former name.", inter_token_s);
  Histogram& e2e =
      histogram("vllm:e2e_request_latency_seconds", "From submit to the last token.", request_s);
  Histogram& queue = histogram("vllm:request_queue_time_seconds",
                               "Waiting before the first step, at router and replica.", request_s);
  Histogram& queued = histogram("hexgen:queued_us",
                                "The same wait, in buckets that short waits show in.", queued_us);
  Histogram& prefill = histogram("vllm:request_prefill_time_seconds",
                                 "From the first step to the first token.", request_s);
  Histogram& decode =
      histogram("vllm:request_decode_time_seconds", "From the first token to the last.", request_s);
  Histogram& inference = histogram("vllm:request_inference_time_seconds",
                                   "Submit to last token, less the queue where known.", request_s);
  Histogram& prompt_counts =
      histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", token_counts);
  Histogram& generation_counts =
      histogram("vllm:request_generation_tokens", "Generated tokens per request.", token_counts);
  Histogram& longest_choices =
      histogram("vllm:request_max_num_generation_tokens",
                "Generated tokens of each request's longest choice.", token_counts);
  Histogram& params_n = histogram("vllm:request_params_n", "The parameter n.", n_counts);
  Histogram& params_max_tokens =
      histogram("vllm:request_params_max_tokens", "The parameter max_tokens.", token_counts);
  Family<Counter>& http = counters("http_requests_total", "HTTP requests answered.");
  Family<Counter>& refusals = counters("hexgen:requests_refused_total", "Refused, by status.");
  Family<Counter>& slo_met = counters("hexgen:slo_attained_total", "Deadlines met.");
  Family<Counter>& slo_all = counters("hexgen:slo_requests_total", "Requests with a deadline.");
};

serving_metrics::serving_metrics(std::string model_name)
    : impl_(std::make_unique<impl>(std::move(model_name))) {}
serving_metrics::~serving_metrics() = default;

void serving_metrics::http_request(std::string_view handler, std::string_view method, int status) {
  static constexpr std::array paths = {"/v1/chat/completions",
                                       "/v1/completions",
                                       "/v1/models",
                                       "/health",
                                       "/metrics",
                                       "/version",
                                       "/tokenize",
                                       "/detokenize",
                                       "/cluster",
                                       "/v1/health",
                                       "/openapi.json",
                                       "/"};
  static constexpr std::array methods = {"GET", "POST", "HEAD", "OPTIONS"};
  const auto known = [](const auto& all, std::string_view one) {
    return std::find(all.begin(), all.end(), one) != all.end() ? std::string(one) : "other";
  };
  impl_->http
      .Add({{"handler", known(paths, handler)},
            {"method", known(methods, method)},
            {"status", std::to_string(status)}})
      .Increment();
}

void serving_metrics::submitted(int prompts, int choices, int max_tokens) {
  impl_->waiting.Increment(prompts);
  impl_->params_n.Observe(choices);
  impl_->params_max_tokens.Observe(max_tokens);
}

void serving_metrics::first_token(double since_submit_s, double queued_s) {
  impl_->waiting.Decrement();
  impl_->running.Increment();
  impl_->ttft.Observe(since_submit_s);
  if (queued_s < 0)
    return;
  impl_->queue.Observe(queued_s);
  impl_->queued.Observe(1e6 * queued_s);
  impl_->prefill.Observe(std::max(0.0, since_submit_s - queued_s));
}

void serving_metrics::inter_token(double gap_s, int tokens) {
  for (int i = 0; i < tokens; ++i) {
    impl_->itl.Observe(gap_s / tokens);
    impl_->tpot.Observe(gap_s / tokens);
  }
}

void serving_metrics::tokens(int prompt, int generated) {
  impl_->prompt_tokens.Increment(prompt);
  impl_->generation_tokens.Increment(generated);
}

void serving_metrics::prefix_cache(int queried_tokens, int hit_tokens) {
  impl_->prefix_queries.Increment(queried_tokens);
  impl_->prefix_hits.Increment(hit_tokens);
}

void serving_metrics::done(const finished& request) {
  (request.saw_first_token ? impl_->running : impl_->waiting).Decrement();
  impl_->labelled(impl_->success, "finished_reason", request.reason).Increment();
  impl_->slo("ttft", request.ttft_slo);
  impl_->slo("tpot", request.tpot_slo);
  if (!request.saw_first_token)
    return;
  impl_->e2e.Observe(request.e2e_s);
  impl_->inference.Observe(std::max(0.0, request.e2e_s - std::max(0.0, request.queued_s)));
  impl_->decode.Observe(request.decode_s);
  impl_->prompt_counts.Observe(request.prompt_tokens);
  impl_->generation_counts.Observe(request.generated_tokens);
  impl_->longest_choices.Observe(request.longest_choice);
}

void serving_metrics::refused(int status, bool ttft_deadline, bool tpot_deadline) {
  impl_->waiting.Decrement();
  impl_->slo("ttft", ttft_deadline ? 0 : -1);
  impl_->slo("tpot", tpot_deadline ? 0 : -1);
  impl_->labelled(impl_->refusals, "status", std::to_string(status)).Increment();
}

std::string serving_metrics::text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, impl_->registry.Collect());
  return out.str();
}

} // namespace hexgen::actors
