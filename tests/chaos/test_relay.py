"""Neighbouring stages that cannot reach each other, between network namespaces: others relay."""

import re
import signal
import unittest

import clients
import harness
from test_faults import View
from test_partitions import DEVICE, HOST, Network, only_long, permitted

ONLY_DIALS = ("--fabric-host", "none")
# The answer that the reference gives without a doubt (no margin below 0.1) for longest.
CASE = max(harness.GOLDEN.values(), key=lambda case: next(
    (i for i, margin in enumerate(case["margins"]) if margin < 0.1), 0))
CLEAR = next(i for i, margin in enumerate(CASE["margins"]) if margin < 0.1)


class Relay(unittest.TestCase):
    def setUp(self):
        why = permitted()
        if why:
            self.skipTest(why)
        network = Network()
        self.enterContext(network)
        network.apart("a1", "a2")

    def enterContext(self, manager):  # unittest has it from Python 3.11 on
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def pipeline(self, agents):
        """The first half of the layers on a1, the second on a2. `agents`: {name: flags}."""
        flags = ("--stages", "1,1", "--layers", "16,14", "--placement", "a1/0,a2/0", "--fabric-host", HOST,
                 "--api-key", "k" * 32)
        cluster = self.enterContext(harness.Cluster(agents=(), serve=flags, environment={"HEXGEN_CLUSTER_TOKEN": "5" * 64}))
        self.flags = agents
        for name in agents:
            self.join(cluster, name)
            if name not in ("a1", "a2"):
                harness.wait_for(lambda: name in {n["name"] for n in cluster.cluster()["nodes"] if n["state"] == "ready"},
                                 harness.START_S, cluster.tails)
        self.full(cluster)
        return cluster

    def join(self, cluster, name):
        cluster.join_in(f"hx{name}", name, DEVICE, *self.flags[name])

    def full(self, cluster):
        replicas = clients.full(cluster, self.flags, stages=2)
        self.assertEqual(clients.nodes_of(replicas[0]), ["a1", "a2"])

    def relayed_by(self, cluster):
        """Through whom a1 and a2 reach each other, as both tell it; None while there is no link."""
        links = [link for link in cluster.cluster()["links"] if {link["from"], link["to"]} == {"a1", "a2"}]
        if len(links) != 2 or not all(link["reachable"] for link in links) or links[0]["relay"] != links[1]["relay"]:
            return None
        for link in links:
            self.assertGreater(link["latency_us"], 0)
            self.assertGreater(link["bandwidth_gbps"], 0)
            self.assertEqual(link["kind"], "tls")
        return links[0]["relay"]

    def wait_relay(self, cluster, name):
        harness.wait_for(lambda: self.relayed_by(cluster) == name, harness.START_S,
                         lambda: f"{cluster.cluster()['links']}\n{cluster.tails()}")

    def relayed_bytes(self, cluster, name):
        return float(re.search(rf'^hexgen:relayed_bytes_total{{node="{name}"}} (\S+)$',
                               cluster.get("/metrics").body.decode(), re.M)[1])

    def check_golden(self, endpoint):
        reply = endpoint.post("/v1/completions", {"prompt": CASE["ids"], "max_tokens": CLEAR, "temperature": 0,
                                                  "ignore_eos": True, "return_token_ids": True}).json()
        self.assertEqual(reply["choices"][0]["token_ids"], CASE["greedy_ids"][:CLEAR])

    def under_load(self, cluster, act):
        answers = clients.undisturbed(cluster)
        with clients.Load(cluster, answers, 2) as load:
            harness.wait_for(lambda: load.finished >= 2, harness.START_S, cluster.tails)
            act()
            before = load.finished
            harness.wait_for(lambda: load.finished >= before + 4, harness.START_S, cluster.tails)
        self.assertEqual(load.violations, [], cluster.serve.text()[-6000:])

    def test_the_coordinator_relays_between_two_that_only_dial_out(self):
        cluster = self.pipeline({"a1": ONLY_DIALS, "a2": ONLY_DIALS})
        self.assertEqual({n["address"] for n in cluster.cluster()["nodes"]}, {""})
        self.wait_relay(cluster, "coordinator")
        before = self.relayed_bytes(cluster, "coordinator")
        self.check_golden(cluster)
        harness.wait_for(lambda: self.relayed_bytes(cluster, "coordinator") > before + CLEAR * 4 * 576,
                         harness.START_S, cluster.tails)  # a float an activation
        self.assertEqual(self.relayed_bytes(cluster, "a1"), 0)

        def kill():
            old = cluster.agent("a2")
            old.end()
            cluster.processes.remove(old)
            self.join(cluster, "a2")
            self.full(cluster)
            self.wait_relay(cluster, "coordinator")

        self.under_load(cluster, kill)
        # A gateway of its own cannot dial the first stage either.
        gateway = cluster.run("gateway", "gateway", "--join", cluster.fabric, "--port", "0", "--name", "g1",
                              "--model", harness.model(), "--api-key", cluster.api_key)
        line = harness.wait_for(lambda: re.search(r"http://([\d.]+):(\d+)/v1", gateway.text()),
                                harness.START_S, cluster.tails)
        view = View(cluster, line[1], int(line[2]))
        harness.wait_for(lambda: view.get("/health").status == 200, harness.START_S, cluster.tails)
        self.check_golden(view.inner)

    def loses_its_relay(self, fault):
        cluster = self.pipeline({"a3": ("--fabric-host", "10.77.13.2"), "a1": ONLY_DIALS, "a2": ONLY_DIALS})
        self.wait_relay(cluster, "a3")
        self.check_golden(cluster)

        def lose():
            cluster.agent("a3").signal(fault)
            del self.flags["a3"]
            self.wait_relay(cluster, "coordinator")
            self.full(cluster)

        self.under_load(cluster, lose)

    def test_an_agent_relays_and_dies_and_the_coordinator_takes_over(self):
        self.loses_its_relay(signal.SIGKILL)

    @only_long
    def test_an_agent_relays_and_freezes_and_the_coordinator_takes_over(self):
        self.loses_its_relay(signal.SIGSTOP)

    def test_two_that_listen_where_the_other_cannot_dial_are_relayed_too(self):
        cluster = self.pipeline({"a1": ("--fabric-host", "10.77.11.2"), "a2": ("--fabric-host", "10.77.12.2")})
        self.wait_relay(cluster, "coordinator")
        self.check_golden(cluster)


if __name__ == "__main__":
    unittest.main()
