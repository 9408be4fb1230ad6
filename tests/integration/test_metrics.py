"""/metrics after requests whose every number is known, and what is said when the queue is full."""

import re
import threading
import time
import unittest

import harness

PROMPT = list(range(1000, 1020))


def scrape(cluster):
    """Values by name and labels, without engine and model_name."""
    found = {}
    for name, labels, value in re.findall(r"^([a-z0-9_:]+)(?:\{(.*)\})? (\S+)$",
                                          cluster.get("/metrics").body.decode(), re.M):
        kept = sorted(one for one in re.findall(r'\w+="[^"]*"', labels)
                      if not one.startswith(("engine=", "model_name=")))
        found[(name, *kept)] = float(value)
    return found


class Metrics(unittest.TestCase):
    def test_known_requests(self):
        with harness.Cluster(agents=("cpu:threads=2",), serve=("--max-num-seqs", "2", "--kv-cache-dtype", "f16")
                             ) as cluster:
            base = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True}
            self.assertEqual(cluster.post("/v1/completions", {**base, "max_tokens": 5}).status, 200)
            # Three at once, of which two have places: one waits for a first step.
            harness.together([lambda: cluster.streamed("/v1/completions", {**base, "max_tokens": 40, "n": 2}),
                              lambda: cluster.streamed("/v1/completions", {**base, "max_tokens": 7})])
            load = harness.wait_for(
                lambda: next((one for one in cluster.loads() if one["generated_tokens"] == 92), None),
                10, "the replica's last report")
            seen = scrape(cluster)

        def count(name, *labels):
            return seen[(name, *labels)]

        for name, value in {
                "vllm:num_requests_running": 0, "vllm:num_requests_waiting": 0, "vllm:kv_cache_usage_perc": 0,
                "vllm:prompt_tokens_total": 60, "vllm:generation_tokens_total": 92,
                "vllm:prefix_cache_queries_total": 60, "vllm:num_preemptions_total": 0,
                "vllm:request_prompt_tokens_sum": 60, "vllm:request_prompt_tokens_count": 3,
                "vllm:request_generation_tokens_sum": 92, "vllm:request_generation_tokens_count": 3,
                "vllm:request_max_num_generation_tokens_sum": 52,
                "vllm:request_params_n_sum": 4, "vllm:request_params_max_tokens_sum": 52,
                "vllm:inter_token_latency_seconds_count": 92 - 4, "vllm:time_per_output_token_seconds_count": 92 - 4,
                "hexgen:queued_us_count": 3, "hexgen:router_finished_total": 4}.items():
            self.assertEqual(count(name), value, name)
        for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time", "request_prefill_time",
                     "request_decode_time", "request_inference_time"):
            self.assertEqual(count(f"vllm:{name}_seconds_count"), 3, name)
        self.assertEqual(count("vllm:request_success_total", 'finished_reason="length"'), 3)
        self.assertEqual(count("http_requests_total", 'handler="/v1/completions"', 'method="POST"', 'status="200"'), 3)
        # A request's parts make up the whole.
        total = {name: count(f"vllm:{name}_seconds_sum") for name in (
            "time_to_first_token", "e2e_request_latency", "request_queue_time", "request_prefill_time",
            "request_decode_time", "request_inference_time")}
        self.assertAlmostEqual(total["request_queue_time"] + total["request_prefill_time"],
                               total["time_to_first_token"], 5)
        self.assertAlmostEqual(total["time_to_first_token"] + total["request_decode_time"],
                               total["e2e_request_latency"], 5)
        self.assertAlmostEqual(total["request_queue_time"] + total["request_inference_time"],
                               total["e2e_request_latency"], 5)
        self.assertAlmostEqual(total["request_queue_time"], 1e-6 * count("hexgen:queued_us_sum"), 5)
        self.assertGreater(total["request_queue_time"], 0)
        # Four prompts less what was cached, and four answers less the last token, went through steps.
        self.assertEqual(count("vllm:iteration_tokens_total_sum"), 80 - load["prefix_hits"] + 92 - 4)
        self.assertEqual(count("vllm:iteration_tokens_total_bucket", 'le="+Inf"'),
                         count("vllm:iteration_tokens_total_count"))
        self.assertGreaterEqual(count("vllm:iteration_tokens_total_bucket", 'le="1"'), 4)
        self.assertEqual(count("vllm:cache_config_info", 'block_size="16"', 'cache_dtype="f16"',
                               'enable_prefix_caching="True"', f'num_gpu_blocks="{load["blocks"]}"'), 1)

    def test_a_full_queue_refuses_at_once(self):
        """Two run for as long as they may, two wait; whoever comes next is refused while those stay."""
        with harness.Cluster(agents=("cpu:threads=2",), serve=("--max-num-seqs", "2", "--max-num-queued-reqs", "2")
                             ) as cluster:
            body = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True, "max_tokens": 2}
            long = [cluster.stream("/v1/completions", {**body, "max_tokens": 8000}) for _ in range(2)]
            for stream in long:
                next(stream.payloads())
            answers = []
            waiting = [threading.Thread(target=lambda: answers.append(cluster.post("/v1/completions", body).status))
                       for _ in range(2)]
            for one in waiting:
                one.start()
            harness.wait_for(lambda: cluster.metric("hexgen:router_sequences") == 4, 10, "four requests inside")
            for streamed in (False, True):
                began = time.monotonic()
                refused = cluster.post("/v1/completions", {**body, "stream": streamed})
                print(f"    refused in {1e3 * (time.monotonic() - began):.1f} ms", flush=True)
                self.assertEqual(refused.status, 429, refused.body)
                self.assertGreaterEqual(int(refused.headers["Retry-After"]), 1)
                self.assertEqual(refused.json()["error"]["type"], "rate_limit_error")
            self.assertEqual(answers, [])
            for stream in long:
                stream.close()
            for one in waiting:
                one.join()
            self.assertEqual(answers, [200, 200])
            harness.wait_for(lambda: cluster.metric("hexgen:router_refused_total") == 2, 10, "the count of refusals")


if __name__ == "__main__":
    unittest.main()
