"""A device that hangs while its agent's heart beats."""

import unittest

import harness
import stopped_thread

BODY = {"prompt": "Once upon a time", "max_tokens": 48, "temperature": 0, "ignore_eos": True}
AGENTS = ("cpu:threads=1,memory=120MiB,speed=1", "cpu:threads=1,memory=120MiB,speed=0.8",
          "cpu:threads=1,memory=120MiB,speed=0.6")
# What is late is judged by the widest step that could be.
SHORT_STEPS = ("--max-num-batched-tokens", "16")


def text_of(chunks):
    return "".join(c["choices"][0]["text"] for c in chunks if c["choices"])


class Hang(unittest.TestCase):
    def test_a_hung_device_costs_no_token_and_its_process_starts_anew(self):
        with harness.Cluster(agents=AGENTS, serve=SHORT_STEPS) as cluster:
            undisturbed = text_of(cluster.streamed("/v1/completions", BODY))
            replica = next(r for r in cluster.cluster()["plan"]["replicas"] if r["state"] == "serving")
            victim = replica["stages"][-1]["devices"][0].split("/")[0]
            pid = cluster.agent(victim).child.pid
            rank = stopped_thread.threads(pid, "hexgen-rank")
            self.assertEqual(len(rank), 1)
            stream = cluster.stream("/v1/completions", BODY)
            payloads = []
            for payload in stream.payloads():
                payloads.append(payload)
                if len(payloads) == 5:
                    hung = stopped_thread.StoppedThread(rank[0])
                    if hung.error:
                        self.skipTest(f"threads cannot be stopped here: {hung.error}")
            self.assertEqual(payloads[-1], "[DONE]")
            chunks = [harness.json.loads(p) for p in payloads[:-1]]
            self.assertFalse([c for c in chunks if "error" in c], chunks[-1])
            self.assertEqual(text_of(chunks), undisturbed)
            self.assertIn("a step has been running", cluster.serve.text())

            def is_back():
                nodes = {n["name"]: n for n in cluster.cluster()["nodes"]}
                return victim in nodes and nodes[victim]["state"] == "ready" and nodes[victim]["restarted_because"]

            self.assertIn("a device hangs", harness.wait_for(is_back, harness.START_S, cluster.tails))
            self.assertEqual(cluster.agent(victim).child.pid, pid)
            self.assertTrue(cluster.agent(victim).alive())
            self.assertEqual(text_of(cluster.streamed("/v1/completions", BODY)), undisturbed)


if __name__ == "__main__":
    unittest.main()
