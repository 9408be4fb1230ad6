"""An agent whose devices have processes of their own."""

import os
import re
import signal
import unittest

import harness


class Workers(unittest.TestCase):
    def test_a_lost_worker_costs_no_other_and_comes_back(self):
        body = {"prompt": "The capital of France is", "max_tokens": 16, "temperature": 0}
        with harness.Cluster(agents=("cpu:threads=1",)) as alone:
            expected = alone.post("/v1/completions", body).json()["choices"][0]["text"]
        # One tensor-parallel group over both: any of them that is missing is noticed.
        layout = ("--stages", "2", "--layers", "30", "--placement", "box-cpu0/0,box-cpu1/0")
        with harness.Cluster(agents=(), serve=layout) as cluster:
            box = cluster.join("box", "cpu:threads=1", "--device", "cpu:threads=1", "--worker-processes")
            harness.wait_for(lambda: cluster.running() and cluster.get("/health").status == 200, harness.START_S,
                             cluster.tails)
            nodes = {n["name"]: n for n in cluster.cluster()["nodes"]}
            self.assertEqual(sorted(nodes), ["box-cpu0", "box-cpu1"])
            self.assertEqual(cluster.post("/v1/completions", body).json()["choices"][0]["text"], expected)

            def started(name):
                return re.findall(rf"event=child_started pid=(\d+) worker={name}$", box.text(), re.M)

            (first,), (second,) = started("box-cpu0"), started("box-cpu1")
            os.kill(int(second), signal.SIGKILL)
            harness.wait_for(lambda: cluster.running() and len(started("box-cpu1")) == 2, harness.START_S, cluster.tails)
            self.assertIn(f"event=child_ended pid={second} signal=9 worker=box-cpu1", box.text())
            reply = harness.wait_for(
                lambda: (r := cluster.post("/v1/completions", body)).status == 200 and r, harness.START_S, cluster.tails)
            self.assertEqual(reply.json()["choices"][0]["text"], expected)
            self.assertEqual(started("box-cpu0"), [first])

            box.child.send_signal(signal.SIGTERM)
            box.child.wait(harness.START_S)
            self.assertEqual(box.child.returncode, 0)
            for pid in (first, started("box-cpu1")[-1]):
                self.assertFalse(os.path.exists(f"/proc/{pid}"))
            cluster.processes.remove(box)


if __name__ == "__main__":
    unittest.main()
