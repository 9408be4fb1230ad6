"""Golden answers through HTTP and over the fabric, from three unlike agents."""

import json
import unittest

import harness

CHAT = harness.GOLDEN["chat_simple"]
PARIS = "The capital of France is Paris."


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = harness.Cluster().start()
        cls.addClassCleanup(cls.cluster.stop)

    def chat(self, **more):
        return {"model": "smollm2", "messages": CHAT["messages"], "temperature": 0, **more}

    def test_plan_has_unlike_stages(self):
        replicas = self.cluster.cluster()["plan"]["replicas"]
        stages = [s for r in replicas if r["state"] == "serving" for s in r["stages"]]
        self.assertGreater(len(stages), 1)
        self.assertEqual(sum(s["layers"] for s in stages), 30)
        self.assertGreater(len({(s["layers"], s["degree"]) for s in stages}), 1, stages)

    def test_whole(self):
        reply = self.cluster.post("/v1/chat/completions", self.chat()).json()
        self.assertEqual(reply["choices"][0]["message"], {"role": "assistant", "content": PARIS})
        self.assertEqual(reply["choices"][0]["finish_reason"], "stop")
        self.assertEqual(reply["usage"]["prompt_tokens"], len(CHAT["ids"]))

    def test_streamed(self):
        chunks = self.cluster.streamed("/v1/chat/completions", self.chat(stream_options={"include_usage": True}))
        self.assertEqual({c["id"] for c in chunks}, {chunks[0]["id"]})
        self.assertEqual({c["created"] for c in chunks}, {chunks[0]["created"]})
        self.assertEqual(chunks[0]["choices"][0]["delta"]["role"], "assistant")
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1])
        self.assertEqual(text, PARIS)
        self.assertEqual([c["choices"][0]["finish_reason"] for c in chunks[:-1]],
                         [None] * (len(chunks) - 2) + ["stop"])
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["prompt_tokens"], len(CHAT["ids"]))
        self.assertTrue(all(c["usage"] is None for c in chunks[:-1]))

    def test_golden_ids_where_the_margin_is_clear(self):
        """The fast kernels' tokens are the reference's up to the first margin below 0.1."""
        checked = 0
        for case in harness.GOLDEN.values():
            clear = next((i for i, m in enumerate(case["margins"]) if m < 0.1), 48)
            if clear < 4:
                continue
            with self.subTest(case["id"]):
                reply = self.cluster.post("/v1/completions", {
                    "prompt": case["ids"], "max_tokens": clear, "temperature": 0, "ignore_eos": True,
                    "return_token_ids": True}).json()
                self.assertEqual(reply["choices"][0]["token_ids"], case["greedy_ids"][:clear])
                checked += clear
        self.assertGreater(checked, 30)

    def test_text_and_ids_are_one_prompt(self):
        case = harness.GOLDEN["plain_capital"]
        texts = [self.cluster.post("/v1/completions", {"prompt": p, "max_tokens": 12, "temperature": 0}).json()
                 ["choices"][0]["text"] for p in (case["prompt"], case["ids"], [case["ids"]], [case["prompt"]])]
        self.assertEqual(texts, texts[:1] * 4)

    def test_stop_string_is_not_part_of_the_answer(self):
        for stream in (False, True):
            body = self.chat(stop=["Paris"])
            if stream:
                chunks = self.cluster.streamed("/v1/chat/completions", body)
                text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
            else:
                text = self.cluster.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
            self.assertEqual(text, "The capital of France is ")

    def test_alone_or_together_the_answers_are_equal(self):
        bodies = [{"prompt": case["ids"][:64], "max_tokens": 6 + i, "temperature": 0.8 if i % 2 else 0,
                   "seed": 7 + i, "top_k": 40, "repetition_penalty": 1.1 if i % 3 else 1.0,
                   "ignore_eos": True, "return_token_ids": True, "n": 2 if i == 3 else 1}
                  for i, case in enumerate(list(harness.GOLDEN.values())[:8])]

        def ids(body):
            reply = self.cluster.post("/v1/completions", body)
            self.assertEqual(reply.status, 200, reply.body)
            return [c["token_ids"] for c in reply.json()["choices"]]

        alone = [ids(b) for b in bodies]
        self.assertEqual([len(a[0]) for a in alone], [b["max_tokens"] for b in bodies])
        self.assertEqual(harness.together([lambda b=b: ids(b) for b in bodies]), alone)

    def test_tokens_round_trip(self):
        for case in harness.GOLDEN.values():
            if case["messages"]:
                asked = {"messages": case["messages"]}
            else:
                asked = {"prompt": case["prompt"]}
            tokens = self.cluster.post("/tokenize", asked).json()
            self.assertEqual(tokens["tokens"], case["ids"], case["id"])
            self.assertEqual(tokens["count"], len(case["ids"]))
            text = self.cluster.post("/detokenize", {"tokens": case["ids"]}).json()
            self.assertEqual(text["prompt"], case["prompt"])
        llama = self.cluster.post("/tokenize", {"content": "Hello world"}).json()["tokens"]
        self.assertEqual(self.cluster.post("/detokenize", {"tokens": llama}).json()["content"], "Hello world")

    def test_the_fabric_gives_the_same_answer(self):
        code, out, err = self.cluster.command("chat", CHAT["messages"][0]["content"], "--address",
                                              self.cluster.fabric, "--temperature", "0")
        self.assertEqual((code, out.strip()), (0, PARIS), err)

    def test_logprobs(self):
        reply = self.cluster.post("/v1/chat/completions", self.chat(logprobs=True, top_logprobs=2)).json()
        content = reply["choices"][0]["logprobs"]["content"]
        self.assertEqual(len(content), reply["usage"]["completion_tokens"])
        for token in content:
            self.assertLessEqual(token["logprob"], 0)
            self.assertEqual(len(token["top_logprobs"]), 2)
            self.assertEqual(token["top_logprobs"][0]["token"], token["token"])  # greedy
            self.assertGreaterEqual(token["top_logprobs"][0]["logprob"], token["top_logprobs"][1]["logprob"])

    def test_json_object(self):
        reply = self.cluster.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "Give me a JSON object with a name."}], "max_tokens": 60,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
                "type": "object", "properties": {"name": {"type": "string", "maxLength": 12}},
                "required": ["name"], "additionalProperties": False}}}, "temperature": 0})
        self.assertEqual(reply.status, 200, reply.body)
        choice = reply.json()["choices"][0]
        self.assertEqual(choice["finish_reason"], "stop")
        self.assertEqual(list(json.loads(choice["message"]["content"])), ["name"])

    def test_metrics_count_what_was_served(self):
        names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:e2e_request_latency_seconds_count")
        before = [self.cluster.metric(n) for n in names]
        usage = self.cluster.post("/v1/chat/completions", self.chat()).json()["usage"]
        after = [self.cluster.metric(n) for n in names]
        self.assertEqual([b - a for a, b in zip(before, after)],
                         [usage["prompt_tokens"], usage["completion_tokens"], 1])
        harness.wait_for(lambda: self.cluster.metric("vllm:num_requests_running") == 0, 10, "no request that runs")
