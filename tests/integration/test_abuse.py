"""What clients do wrong, from bad numbers to hanging up: one small cluster takes it all."""

import json
import socket
import time
import unittest

import harness

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
BAD_VALUES = {
    "temperature": [-1, 2.1, 1e308, "1", [], True],
    "top_p": [-0.1, 1.1, "x"],
    "top_k": [-2, 1.5, 10**30, "x"],
    "min_p": [-0.1, 1.1],
    "repetition_penalty": [0, -1, 100],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1],
    "n": [0, -1, 129, 16384, 10**18, 1.5],
    "max_tokens": [0, -1, 10**12, "all"],
    "min_tokens": [-1, 10**12],
    "seed": [1.5, "x"],
    "stop": ["", ["a"] * 17, [1], {}, "x" * 1025],
    "stop_token_ids": [[-1], [10**9], "1", [1] * 65],
    "logit_bias": [{"-1": 1}, {"999999999": 1}, {"x": 1}, {"1": 101}, {"1": None}, [1]],
    "response_format": ["json", {"type": "xml"}, {"type": "json_schema"}],
    "stream": ["yes", 1],
    "user": [1],
    "model": [1],
}


class Abuse(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = harness.Cluster(agents=("cpu:threads=2",)).start()
        cls.addClassCleanup(cls.cluster.stop)

    def tearDown(self):
        self.cluster.running()
        self.assertEqual(self.cluster.get("/health").status, 200)

    def error(self, reply, status, param=None):
        self.assertEqual(reply.status, status, reply.body)
        error = reply.json()["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["param"], param)
        return error

    def test_bad_values_are_named(self):
        for path, base in (("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "hi"})):
            for name, values in BAD_VALUES.items():
                for value in values:
                    with self.subTest(path=path, name=name, value=str(value)[:40]):
                        self.error(self.cluster.post(path, {**base, name: value}), 400, name)

    def test_odd_values_within_bounds_are_served(self):
        for odd in ({"top_p": 0}, {"top_p": 1e-60}, {"min_p": 1}, {"top_k": -1}, {"top_k": 10**6},
                    {"repetition_penalty": 0.01}, {"repetition_penalty": 10}, {"temperature": 1e-300},
                    {"logit_bias": {"5": -100, "6": 100}}, {"seed": -1}, {"seed": 2**64 - 1}, {"min_tokens": 3}):
            with self.subTest(odd=odd):
                reply = self.cluster.post("/v1/completions", {"prompt": "hi", "max_tokens": 3, **odd})
                self.assertEqual(reply.status, 200, reply.body)

    def test_numbers_that_are_none(self):
        for text in ("NaN", "Infinity", "-Infinity", "1e999"):
            self.error(self.cluster.post("/v1/completions", '{"prompt": "hi", "top_p": %s}' % text), 400, "top_p")

    def test_bad_bodies(self):
        for body in ("", "{", "[]", "null", b"\xff\xfe", '{"prompt": "' + "\\ud800" + '"}', "[" * 100000):
            self.assertEqual(self.cluster.post("/v1/completions", body).status, 400, body[:20])

    def test_a_bad_schema_is_a_400(self):
        for schema in ({"type": "nonsense"}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "("}):
            reply = self.cluster.post("/v1/chat/completions", {**CHAT, "max_tokens": 4, "response_format": {
                "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
            self.assertEqual(reply.status, 400, (schema, reply.body))

    def test_sizes(self):
        self.error(self.cluster.call("POST", "/v1/completions", b"x" * (9 << 20)), 413)
        self.assertEqual(self.cluster.get("/health", {"X-Long": "x" * 20000}).status, 431)
        error = self.error(self.cluster.post("/v1/completions", {"prompt": [5] * 9000}), 400, "prompt")
        self.assertEqual(error["code"], "context_length_exceeded")

    def test_paths_and_methods(self):
        self.error(self.cluster.get("/v2/nothing"), 404)
        self.error(self.cluster.get("/v1/completions"), 405)
        self.error(self.cluster.call("DELETE", "/v1/models"), 405)
        self.assertEqual(self.cluster.call("OPTIONS", "/v1/models").status, 204)

    def test_garbage_on_the_ports(self):
        fabric_port = int(self.cluster.fabric.rsplit(":", 1)[1])
        for port in (self.cluster.port, fabric_port):
            for garbage in (b"\x00" * 4096, b"GET \xff\xff HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\xff" * 600, b""):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
                    try:
                        peer.sendall(garbage)
                        peer.shutdown(socket.SHUT_WR)
                        while peer.recv(4096):
                            pass
                    except OSError:
                        pass  # cut off: as good an answer

    def free_blocks(self):
        return [(one["running"], one["waiting"], one["free_blocks"]) for one in self.cluster.loads()]

    def idle(self):
        return (self.cluster.metric("vllm:num_requests_running") == 0
                and self.cluster.metric("vllm:num_requests_waiting") == 0
                and all(r[0] == 0 and r[1] == 0 for r in self.free_blocks()))

    def test_hanging_up_cancels(self):
        body = {"prompt": "Once upon a time", "max_tokens": 4000, "temperature": 0, "ignore_eos": True}
        harness.wait_for(self.idle, 10, "an idle cluster")
        for stream in (True, False):
            for after_s in (0.0, 0.5):
                with self.subTest(stream=stream, after_s=after_s):
                    if stream:
                        opened = self.cluster.stream("/v1/completions", body)
                        next(opened.payloads())
                        time.sleep(after_s)
                        opened.close()
                    else:
                        connection = self.cluster.open("POST", "/v1/completions", body)
                        time.sleep(0.2 + after_s)
                        connection.close()
                    # 4,000 tokens take far longer: only a cancel makes it idle.
                    harness.wait_for(self.idle, 10, lambda: f"still busy: {self.free_blocks()}")

    def test_a_full_router_says_429(self):
        body = {"prompt": "Once upon a time", "max_tokens": 2000, "temperature": 0, "ignore_eos": True, "n": 128}
        opened, refused = [], None
        try:
            for _ in range(12):
                connection = self.cluster.open("POST", "/v1/completions", body)
                connection.sock.settimeout(1)
                try:
                    refused = connection.getresponse()
                    break
                except TimeoutError:
                    opened.append(connection)
            self.assertIsNotNone(refused, "12 x 128 sequences were taken in")
            self.assertEqual(refused.status, 429)
            self.assertGreaterEqual(int(refused.headers["Retry-After"]), 1)
            self.assertEqual(json.loads(refused.read())["error"]["type"], "rate_limit_error")
        finally:
            for connection in opened:
                connection.close()
        harness.wait_for(self.idle, 30, lambda: f"still busy: {self.free_blocks()}")

    def test_bench(self):
        code, out, err = self.cluster.command(
            "bench", "--url", f"http://127.0.0.1:{self.cluster.port}", "--num-prompts", "6", "--max-concurrency", "3",
            "--input-len", "24", "--output-len", "5", "--goodput", "ttft:60000", "--json")
        self.assertEqual(code, 0, err)
        report = json.loads(out)
        self.assertEqual((report["completed"], report["failed"]), (6, 0), report["errors"])
        self.assertEqual(report["total_input_tokens"], 6 * 24)
        self.assertEqual(report["total_output_tokens"], 6 * 5)
        self.assertEqual(report["slo_attainment"], 1)
        self.assertGreater(report["median_ttft_ms"], 0)
