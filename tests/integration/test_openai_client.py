"""The OpenAI Python client, unmodified."""

import unittest

import harness

try:
    import openai
except ImportError as missing:
    raise RuntimeError("the package openai is missing: python3 -m pip install openai") from missing


class OpenAIClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = harness.Cluster(agents=("cpu:threads=1",), serve=("--api-key", "sk-test")).start()
        cls.addClassCleanup(cls.cluster.stop)

    def setUp(self):
        self.client = openai.OpenAI(base_url=f"http://{self.cluster.host}:{self.cluster.port}/v1",
                                    api_key="sk-test", max_retries=0, timeout=harness.START_S)
        self.addCleanup(self.client.close)

    def test_models(self):
        models = list(self.client.models.list())
        self.assertEqual([m.id for m in models], ["smollm2"])
        self.assertTrue(models[0].root)
        self.assertEqual(self.client.models.retrieve("smollm2").id, "smollm2")

    def test_chat(self):
        messages = harness.GOLDEN["chat_simple"]["messages"]
        whole = self.client.chat.completions.create(model="smollm2", messages=messages, temperature=0)
        self.assertEqual(whole.choices[0].message.content, "The capital of France is Paris.")
        text, usage = "", None
        for chunk in self.client.chat.completions.create(model="smollm2", messages=messages, temperature=0,
                                                         stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(usage.total_tokens, whole.usage.total_tokens)

    def test_completion(self):
        prompt = harness.GOLDEN["plain_capital"]["prompt"]
        whole = self.client.completions.create(model="smollm2", prompt=prompt, max_tokens=8, temperature=0, n=2)
        self.assertEqual(len(whole.choices), 2)
        self.assertEqual(whole.choices[0].text, whole.choices[1].text)
        parts = self.client.completions.create(model="smollm2", prompt=prompt, max_tokens=8, temperature=0, stream=True)
        self.assertEqual("".join(p.choices[0].text for p in parts), whole.choices[0].text)

    def test_a_load_as_vllm_bench_sends_it(self):
        """What `vllm bench serve` sends and reads, through the public client: 16 streams, 8 at once."""
        def one(i):
            with self.client.chat.completions.create(
                    model="smollm2", messages=[{"role": "user", "content": f"Tell me about the number {i}."}],
                    max_completion_tokens=5 + i % 4, stream=True, stream_options={"include_usage": True},
                    extra_body={"ignore_eos": True}, extra_headers={"x-request-id": f"bench-{i}"}) as stream:
                self.assertEqual(stream.response.headers["x-request-id"], f"bench-{i}")
                parts = list(stream)
            self.assertTrue(parts[0].choices)
            self.assertEqual((parts[-1].choices, parts[-1].usage.completion_tokens), ([], 5 + i % 4))
            return parts[-1].usage.completion_tokens

        counts = harness.together([lambda k=k: [one(i) for i in range(k, 16, 8)] for k in range(8)])
        self.assertEqual(sum(map(sum, counts)), sum(5 + i % 4 for i in range(16)))

    def test_errors(self):
        messages = [{"role": "user", "content": "hi"}]
        create = self.client.chat.completions.create
        with self.assertRaises(openai.NotFoundError) as unknown:
            create(model="gpt-9", messages=messages)
        self.assertEqual(unknown.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as long:
            create(model="smollm2", messages=[{"role": "user", "content": "word " * 20000}])
        self.assertEqual(long.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.BadRequestError) as typed:
            create(model="smollm2", messages=messages, temperature="hot")
        self.assertEqual(typed.exception.param, "temperature")
        self.assertEqual(typed.exception.type, "invalid_request_error")
        wrong = openai.OpenAI(base_url=self.client.base_url, api_key="sk-wrong", max_retries=0)
        self.addCleanup(wrong.close)
        with self.assertRaises(openai.AuthenticationError):
            wrong.models.list()

    def test_every_path_but_health_needs_the_key(self):
        for path in ("/", "/v1/models", "/metrics", "/version", "/cluster", "/openapi.json", "/nothing"):
            self.assertEqual(self.cluster.get(path, {"Authorization": "Bearer no"}).status, 401, path)
        self.assertEqual(self.cluster.get("/health", {"Authorization": ""}).status, 200)
        code, _, err = self.cluster.command("chat", "hi", "--address", self.cluster.fabric, "--api-key", "sk-wrong")
        self.assertEqual(code, 1, err)

    def test_a_public_address_needs_a_key(self):
        code, _, err = self.cluster.command("serve", harness.model(), "--host", "0.0.0.0", "--port", "0", timeout=30)
        self.assertEqual(code, 2)
        self.assertIn("--api-key", err)
