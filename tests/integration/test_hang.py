"""A device that hangs while its agent's heart beats."""

import unittest

import clients
import harness
import history
import stopped_thread

BODY = {**clients.MODES["greedy"], "max_tokens": 48}
AGENTS = ("cpu:threads=1,memory=120MiB,speed=1", "cpu:threads=1,memory=120MiB,speed=0.8",
          "cpu:threads=1,memory=120MiB,speed=0.6")
# What is late is judged by the widest step that could be.
SHORT_STEPS = ("--max-num-batched-tokens", "16")


class Hang(unittest.TestCase):
    def test_a_hung_device_costs_no_token_and_its_process_starts_anew(self):
        with harness.Cluster(agents=AGENTS, serve=SHORT_STEPS) as cluster:
            answer = clients.undisturbed(cluster, {"it": BODY})["it"]
            replica = next(r for r in cluster.cluster()["plan"]["replicas"] if r["state"] == "serving")
            victim = replica["stages"][-1]["devices"][0].split("/")[0]
            pid = cluster.agent(victim).child.pid
            rank = stopped_thread.threads(pid, "hexgen-rank")
            self.assertEqual(len(rank), 1)
            hung = []

            def on_token(count):
                if count == 5:
                    hung.append(stopped_thread.StoppedThread(rank[0]))

            transcript = clients.ask(cluster, BODY, on_token)
            if hung[0].error:
                self.skipTest(f"threads cannot be stopped here: {hung[0].error}")
            self.assertEqual(history.check(transcript, answer), [])
            self.assertIn("a step has been running", cluster.serve.text())

            def is_back():
                nodes = {n["name"]: n for n in cluster.cluster()["nodes"]}
                return victim in nodes and nodes[victim]["state"] == "ready" and nodes[victim]["restarted_because"]

            self.assertIn("a device hangs", harness.wait_for(is_back, harness.START_S, cluster.tails))
            self.assertEqual(cluster.agent(victim).child.pid, pid)
            self.assertTrue(cluster.agent(victim).alive())
            self.assertEqual(history.check(clients.ask(cluster, BODY), answer), [])


if __name__ == "__main__":
    unittest.main()
