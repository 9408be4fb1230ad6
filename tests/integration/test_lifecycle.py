"""Before the cluster is ready, and while it ends."""

import signal
import threading
import time
import unittest

import harness


class Lifecycle(unittest.TestCase):
    def test_without_devices_it_says_what_is_missing(self):
        with harness.Cluster(agents=()) as cluster:
            health = cluster.get("/health")
            self.assertEqual(health.status, 503)
            self.assertTrue(health.json()["error"]["message"])
            self.assertGreaterEqual(int(health.headers["Retry-After"]), 1)
            self.assertEqual([m["id"] for m in cluster.get("/v1/models").json()["data"]], ["smollm2"])
            reply = cluster.post("/v1/completions", {"prompt": "hi"}, timeout=60)
            self.assertEqual(reply.status, 503, reply.body)
            self.assertEqual(reply.json()["error"]["code"], "service_unavailable")
            self.assertGreaterEqual(int(reply.headers["Retry-After"]), 1)
            self.assertIn("<title>Hexgen</title>", cluster.get("/").body.decode())
            self.assertIn("/v1/completions", cluster.get("/openapi.json").json()["paths"])

    def test_sigterm_lets_the_running_answer_finish(self):
        with harness.Cluster(agents=("cpu:threads=1",), serve=("--shutdown-timeout", "120")) as cluster:
            body = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, "ignore_eos": True}
            undisturbed = cluster.streamed("/v1/completions", body)
            stream = cluster.stream("/v1/completions", body)
            payloads = stream.payloads()
            got = [next(payloads)]
            cluster.serve.child.send_signal(signal.SIGTERM)
            reader = threading.Thread(target=lambda: got.extend(payloads))
            reader.start()
            seen = None
            while reader.is_alive() and seen != 503:
                try:
                    seen = cluster.get("/health").status
                except OSError:
                    break  # it has ended already
                time.sleep(0.01)
            reader.join(harness.START_S)
            self.assertFalse(reader.is_alive())
            self.assertIn(seen, (503, 200, None))
            self.assertEqual(got[-1], "[DONE]")
            self.assertEqual(len(got) - 1, len(undisturbed))
            self.assertEqual(cluster.serve.child.wait(30), 0)
            cluster.processes.remove(cluster.serve)

    def test_the_embedded_default_serves_alone(self):
        with harness.Cluster(agents=(), device="cpu:threads=1") as cluster:
            reply = cluster.post("/v1/completions", {"prompt": "The capital of France is", "max_tokens": 2,
                                                     "temperature": 0}).json()
            self.assertEqual(reply["usage"]["completion_tokens"], 2)
