"""Speculation by prompt look-up: fewer steps where a text repeats itself, and never another answer."""

import unittest

import harness

WORDS = [400, 401, 402, 403, 404, 405, 406]
SCHEMA = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}},
                                     "required": ["name"], "additionalProperties": False}, "minItems": 4, "maxItems": 6}


def bodies():
    """Requests whose answers repeat themselves or their prompts, and some that do not."""
    plain = [case["ids"] for case in harness.GOLDEN.values()]
    samplers = ({"temperature": 0}, {"temperature": 0, "repetition_penalty": 1.3}, {"temperature": 0.7, "top_k": 5},
                {"temperature": 0.4, "presence_penalty": 0.6, "frequency_penalty": 0.4},
                {"temperature": 0, "logprobs": 2}, {"temperature": 0.8, "n": 3, "min_tokens": 20},
                {"temperature": 0, "stop": [" the"]}, {"temperature": 0.2, "logit_bias": {"400": 5, "28": -100}})
    made = []
    for i, sampler in enumerate(samplers):
        for prompt in (WORDS * 6, plain[i % len(plain)]):
            made.append(("/v1/completions", {**sampler, "prompt": prompt, "max_tokens": 60, "seed": 7 + i,
                                             "ignore_eos": i % 2 == 0, "return_token_ids": True}))
    for temperature in (0, 0.9):
        made.append(("/v1/chat/completions", {
            "temperature": temperature, "seed": 3, "max_tokens": 80, "return_token_ids": True,
            "messages": [{"role": "user", "content": "Some names."}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}))
    return made


def answer(cluster, path, body):
    reply = cluster.post(path, body)
    assert reply.status == 200, reply.body
    return [(c["token_ids"], c.get("text", c.get("message")), c["finish_reason"], c["logprobs"])
            for c in reply.json()["choices"]]


def load(cluster):
    """The replica's last report, when it is idle."""
    return harness.wait_for(lambda: next((one for one in cluster.loads() if one["free_blocks"] == one["blocks"]
                                          and one["running"] == 0), None), 10, "an idle replica")


class Speculation(unittest.TestCase):
    def test_answers_are_the_same(self):
        with harness.Cluster(agents=("cpu:threads=2",)) as cluster:
            wanted = [answer(cluster, *b) for b in bodies()]
        layouts = {"one device": (("cpu:threads=2",), ()),
                   "three stages": (harness.UNLIKE_AGENTS, ("--max-replicas", "1")),
                   "a stage of two": (("cpu:threads=1",) * 2, ("--stages", "2", "--layers", "30"))}
        for name, (agents, layout) in layouts.items():
            with self.subTest(name), harness.Cluster(
                    agents=agents, serve=("--speculate", "ngram:8", *layout)) as cluster:
                together = harness.together([lambda b=b: answer(cluster, *b) for b in bodies()])
                for (_, body), want, got in zip(bodies(), wanted, together):
                    self.assertEqual(got, want, body)
                seen = load(cluster)
                print(f"    {name}: {seen['accepted_tokens']} of {seen['draft_tokens']} drafts stood, "
                      f"{seen['generated_tokens']} tokens in {seen['steps']} steps", flush=True)
                self.assertGreater(seen["accepted_tokens"], 100)
                self.assertGreater(seen["draft_tokens"], seen["accepted_tokens"])
                counted = "vllm:spec_decode_num_accepted_tokens_total"
                harness.wait_for(lambda: cluster.metric(counted) == seen["accepted_tokens"], 10,
                                 lambda: f"{counted} {cluster.metric(counted)} is not {seen['accepted_tokens']}")

    def test_what_is_no_speculation_is_refused(self):
        with harness.Cluster(agents=()) as cluster:
            for value in ("ngram", "ngram:0", "ngram:65", "ngram:8x", "draft:8", ""):
                code, _, error = cluster.command("serve", harness.model(), "--speculate", value, "--port", "0")
                self.assertEqual((code, "ngram:N" in error), (2, True), error)


if __name__ == "__main__":
    unittest.main()
