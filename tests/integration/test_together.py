"""Answers under company: 32 clients at once get, token for token, what each gets alone."""

import json
import os
import unittest

import harness

LONG = bool(os.environ.get("HEXGEN_LONG"))
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}


def bodies():
    """32 requests: lengths, samplers and forms differ; every one fits 192 tokens."""
    prompts = [case["ids"] for case in harness.GOLDEN.values()]
    shared = (prompts[0] * 40)[:40]  # the beginning of every fourth prompt: prefix hits
    samplers = (
        {"temperature": 0},
        {"temperature": 0.9, "top_k": 30},
        {"temperature": 1.1, "top_p": 0.9, "presence_penalty": 0.5},
        {"temperature": 0.7, "min_p": 0.05, "repetition_penalty": 1.2},
        {"temperature": 1.0, "frequency_penalty": 0.8, "logprobs": 3},
        {"temperature": 0, "logprobs": 1, "logit_bias": {"28": -100, "284": 2}},
        {"temperature": 0.8, "stop": [" the", "and "]},
        {"temperature": 1.0, "n": 2, "top_k": 50},
    )
    made = []
    for i in range(32):
        body = {**samplers[i % 8], "seed": 1000 + i, "max_tokens": 8 + 9 * (i % 7)}
        if i % 16 == 9:
            body.pop("logprobs", None)
            made.append(("/v1/chat/completions", {
                **body, "max_tokens": 40, "return_token_ids": True,
                "messages": [{"role": "user", "content": f"Person {i} as JSON."}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}))
            continue
        prompt = prompts[i % len(prompts)][:4 + 2 * i]
        if i % 4 == 0:
            prompt = shared + prompt[:10 + i]
        made.append(("/v1/completions", {**body, "prompt": prompt, "return_token_ids": True, "ignore_eos": i % 2 == 0}))
    return made


def whole(cluster, path, body):
    reply = cluster.post(path, body)
    assert reply.status == 200, reply.body
    return [{"text": c["text"] if "text" in c else c["message"]["content"], "ids": c["token_ids"],
             "finish": c["finish_reason"], "logprobs": c["logprobs"]} for c in reply.json()["choices"]]


def streamed(cluster, path, body):
    """The same, put together from chunks."""
    out = [{"text": "", "ids": [], "finish": None, "logprobs": None} for _ in range(body.get("n", 1))]
    for chunk in cluster.streamed(path, body):
        for c in chunk["choices"]:
            of = out[c["index"]]
            assert of["finish"] is None, "a chunk after the last"
            of["text"] += c["text"] if "text" in c else c["delta"].get("content", "")
            of["ids"] += c["token_ids"]
            of["finish"] = c["finish_reason"]
            if c["logprobs"] is not None:
                of["logprobs"] = of["logprobs"] or {}
                for name, values in c["logprobs"].items():
                    of["logprobs"].setdefault(name, []).extend(values)
    return out


class Together(unittest.TestCase):
    """Alone on three unlike agents; together there, and on other layouts, KV sizes and chunk sizes."""

    @classmethod
    def setUpClass(cls):
        cls.bodies = bodies()
        with harness.Cluster(serve=("--max-model-len", "192", "--no-enable-prefix-caching")) as cluster:
            cls.alone = [whole(cluster, *b) for b in cls.bodies]
            cls.together_there = cls.all_at_once(cluster)

    @classmethod
    def all_at_once(cls, cluster):
        return harness.together([
            lambda i=i, b=b: (streamed if i % 2 else whole)(cluster, *b) for i, b in enumerate(cls.bodies)])

    def equal(self, answers, what):
        for i, (got, alone) in enumerate(zip(answers, self.alone)):
            self.assertEqual(got, alone, f"{what}: request {i} {json.dumps(self.bodies[i])[:300]}")

    def test_together_on_three_unlike_agents(self):
        self.equal(self.together_there, "together")
        for choices, (path, _) in zip(self.alone, self.bodies):
            if path.startswith("/v1/chat"):
                for choice in choices:
                    if choice["finish"] == "stop":
                        self.assertEqual(set(json.loads(choice["text"])), {"name", "age"})

    def cramped(self, chunk):
        """Too little KV for all, prefix hits, small chunks."""
        memory = 118 if chunk > 64 else 110  # a large step reserves more: about 20 blocks remain
        with harness.Cluster(agents=(f"cpu:threads=2,memory={memory}MiB",), serve=(
                "--max-model-len", "192", "--kv-tokens", "192", "--max-num-batched-tokens", str(chunk))) as cluster:
            self.equal(self.all_at_once(cluster), f"chunks of {chunk}")
            if chunk >= 16:  # of fewer tokens a step, too few sequences grow at once
                harness.wait_for(lambda: cluster.metric("vllm:num_preemptions_total") > 0, 3, "a preemption")
            harness.wait_for(lambda: cluster.metric("vllm:prefix_cache_hits_total") > 0, 3, "a prefix hit")

    def test_preempted_with_prefix_hits_in_chunks_of_24(self):
        self.cramped(24)

    @unittest.skipUnless(LONG, "only with --long")
    def test_every_chunk_size(self):
        for chunk in (7, 16, 64, 512):
            with self.subTest(chunk=chunk):
                self.cramped(chunk)
