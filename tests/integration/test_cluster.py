"""Layouts by hand, zones, unlike speeds, and agents that die in the middle of an answer."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import unittest

import clients
import harness
import history

BODY = {"prompt": "Once upon a time", "max_tokens": 48, "temperature": 0, "ignore_eos": True}
SEEDED = {**BODY, "temperature": 0.8, "seed": 11, "top_p": 0.95, "frequency_penalty": 0.3}
# Any two of these hold the model (92 MB).
SPARE_AGENTS = ("cpu:threads=1,memory=120MiB,speed=1", "cpu:threads=1,memory=120MiB,speed=0.8",
                "cpu:threads=1,memory=120MiB,speed=0.6")


def text_of(chunks):
    return "".join(c["choices"][0]["text"] for c in chunks if c["choices"])


def stages(cluster):
    replicas = cluster.cluster()["plan"]["replicas"]
    return [s for r in replicas if r["state"] == "serving" for s in r["stages"]]


def layers_by_node(cluster):
    """Layers that each agent holds."""
    held = {}
    for stage in stages(cluster):
        for device in stage["devices"]:
            held[device.split("/")[0]] = held.get(device.split("/")[0], 0) + stage["layers"]
    return held


class Layouts(unittest.TestCase):
    def test_every_layout_gives_the_same_answer(self):
        answers = {}
        layouts = {
            "one device": (("cpu:threads=1",), ()),
            "two threads": (("cpu:threads=2",), ()),
            "degree 2, then 1": (("cpu:threads=1",) * 3, ("--stages", "2,1", "--layers", "18,12")),
            "degree 3": (("cpu:threads=1",) * 3, ("--stages", "3", "--layers", "30")),
            "three stages": (("cpu:threads=1",) * 3, ("--stages", "1,1,1", "--layers", "7,20,3")),
            "two replicas": (("cpu:threads=1",) * 3, ("--stages", "1;2", "--layers", "30;30")),
        }
        for name, (agents, flags) in layouts.items():
            with self.subTest(name), harness.Cluster(agents=agents, serve=flags) as cluster:
                answers[name] = [text_of(cluster.streamed("/v1/completions", body)) for body in (BODY, SEEDED)]
                self.assertEqual(answers[name], answers["one device"])
                if name == "degree 2, then 1":
                    self.assertEqual([(s["degree"], s["layers"]) for s in stages(cluster)], [(2, 18), (1, 12)])

    def test_swapped_speeds_swap_the_plan(self):
        held = []
        for speeds in ((1, 0.2), (0.2, 1)):
            agents = tuple(f"cpu:threads=1,memory=140MiB,speed={s}" for s in speeds)
            with harness.Cluster(agents=agents) as cluster:
                held.append(layers_by_node(cluster))
        self.assertGreater(held[0].get("a1", 0), held[0].get("a2", 0), held)
        self.assertGreater(held[1].get("a2", 0), held[1].get("a1", 0), held)

    def test_the_plan_equals_brute_force_over_the_measured_rates(self):
        checker = pathlib.Path(harness.binary()).parent / "test_scheduler"
        if not checker.exists():
            self.skipTest(f"{checker} is not built")
        with harness.Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
            told = pathlib.Path(folder, "cluster.json")
            told.write_text(json.dumps(cluster.cluster()))
            found = subprocess.run([checker, "[running_plan]"], env={**os.environ, "HEXGEN_CLUSTER_JSON": str(told)},
                                   capture_output=True, text=True, check=False)
            self.assertEqual(found.returncode, 0, found.stdout + told.read_text())

    def test_machines_without_the_model_fetch_what_they_run(self):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "only-here.gguf")
            source.symlink_to(harness.model())
            with harness.Cluster(agents=(), source=str(source), environment={"XDG_CACHE_HOME": folder},
                                 serve=("--stages", "1,1", "--layers", "18,12")) as cluster:
                source.unlink()  # agents look there first
                agents = {}
                for i in (1, 2):
                    cluster.environment = {**cluster.environment, "XDG_CACHE_HOME": f"{folder}/{i}"}
                    agents[i] = cluster.run(f"a{i}", "join", cluster.fabric, "--name", f"a{i}", "--device",
                                            "cpu:threads=1")
                harness.wait_for(lambda: cluster.running() and cluster.get("/health").status == 200,
                                 harness.START_S, cluster.tails)
                answers = [text_of(cluster.streamed("/v1/completions", body)) for body in (BODY, SEEDED)]
                gateway = cluster.run("gateway", "gateway", "--join", cluster.fabric, "--port", "0")
                cluster.port = int(harness.wait_for(
                    lambda: cluster.running() and re.search(r"http://[^:]+:(\d+)/v1", gateway.text()),
                    harness.START_S, cluster.tails)[1])
                self.assertEqual(text_of(cluster.streamed("/v1/completions", BODY)), answers[0])
                for i in (1, 2):
                    copies = list(pathlib.Path(folder, str(i)).rglob("only-here.gguf"))
                    self.assertEqual(len(copies), 1)
                    self.assertLess(copies[0].stat().st_blocks * 512, 0.9 * copies[0].stat().st_size)
                # Who takes the first one's place fetches nothing that the second holds from the coordinator.
                cluster.environment = {**cluster.environment, "XDG_CACHE_HOME": f"{folder}/3"}
                third = cluster.run("a3", "join", cluster.fabric, "--name", "a3", "--device", "cpu:threads=1")
                harness.wait_for(lambda: ("a3", "ready") in [(n["name"], n["state"]) for n in cluster.cluster()["nodes"]],
                                 harness.START_S, cluster.tails)
                cluster.command("drain", "a2", "--address", cluster.fabric)
                found = harness.wait_for(lambda: re.search(
                    r"event=fetched from_coordinator_bytes=(\d+) from_agents_bytes=(\d+)", third.text()),
                    harness.START_S, cluster.tails)
                self.assertGreater(int(found[2]), int(found[1]), found[0])
                self.assertEqual(text_of(cluster.streamed("/v1/completions", BODY)), answers[0])
        with harness.Cluster(agents=("cpu:threads=1",)) as cluster:
            self.assertEqual(answers, [text_of(cluster.streamed("/v1/completions", body)) for body in (BODY, SEEDED)])

    def test_two_zones_talk_tls(self):
        with harness.Cluster(agents=()) as cluster:
            for i, zone in enumerate(("north", "north", "south")):
                cluster.join(f"a{i + 1}", "cpu:threads=1,memory=80MiB", "--zone", zone)
            harness.wait_for(lambda: cluster.running() and cluster.get("/health").status == 200,
                             harness.START_S, cluster.tails)
            def kinds():
                return {(link["from"], link["to"]): link["kind"] for link in cluster.cluster()["links"]}

            pairs = {("a1", "a2"), ("a1", "a3")}
            seen = harness.wait_for(lambda: (found := kinds()).keys() >= pairs and found, harness.START_S, kinds)
            self.assertEqual(seen[("a1", "a2")], "ucx", seen)
            self.assertEqual(seen[("a1", "a3")], "tls", seen)
            self.assertTrue(text_of(cluster.streamed("/v1/completions", BODY)))


class Joining(unittest.TestCase):
    def test_there_is_no_start_order(self):
        # Agents and a gateway dial until the coordinator is there.
        with harness.Cluster(agents=(), ready=False) as cluster:
            cluster.serve.end()
            cluster.processes.remove(cluster.serve)
            for i in (1, 2):
                cluster.join(f"a{i}", SPARE_AGENTS[i])
            gateway = cluster.run("gateway", "gateway", "--join", cluster.fabric, "--port", "0", "--model", harness.model())
            port = cluster.fabric.rsplit(":", 1)[1]
            cluster.serve = cluster.run("serve", "serve", cluster.source, "--served-model-name", "smollm2", "--device",
                                        "none", "--port", str(cluster.port), "--fabric-port", port)
            cluster.port = int(harness.wait_for(
                lambda: cluster.running() and re.search(r"http://[^:]+:(\d+)/v1", gateway.text()),
                harness.START_S, cluster.tails)[1])
            harness.wait_for(lambda: cluster.get("/health").status == 200, harness.START_S, cluster.tails)
            self.assertEqual(len(clients.ask(cluster, clients.MODES["greedy"]).times()), clients.WIDE["max_tokens"])

    def test_an_agent_is_dialled_where_it_says(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        said = f"localhost:{port}"
        with harness.Cluster(agents=SPARE_AGENTS[:1], ready=False) as cluster:
            cluster.join("a2", SPARE_AGENTS[1], "--fabric-host", "127.0.0.1", "--fabric-port", str(port),
                         "--advertise", said)

            def reached():
                view = cluster.cluster()
                links = [link for link in view["links"] if link["to"] == "a2" and link["reachable"]]
                return links and (links, {n["name"]: n["address"] for n in view["nodes"]})

            links, addresses = harness.wait_for(reached, harness.START_S, cluster.tails)
            self.assertEqual((links[0]["from"], links[0]["relay"]), ("a1", ""))
            self.assertEqual(addresses["a2"], said)


class Strangers(unittest.TestCase):
    def test_a_wrong_token_is_a_clear_error(self):
        with harness.Cluster(agents=("cpu:threads=1",)) as cluster:
            process = harness.Process(cluster.folder, "stranger",
                                      ["join", cluster.fabric, "--name", "x", "--device", "cpu:threads=1"],
                                      {**cluster.environment, "HEXGEN_CLUSTER_TOKEN": "0" * 64})
            try:
                harness.wait_for(lambda: re.search("token", process.text()), 30, process.tail)
                self.assertNotIn("x", [n["name"] for n in cluster.cluster()["nodes"]])
                self.assertTrue(text_of(cluster.streamed("/v1/completions", BODY)))
            finally:
                process.end()


class Loss(unittest.TestCase):
    def lose(self, body, number, after):
        """Each agent that holds a stage is lost in turn; the answer is the undisturbed one."""
        with harness.Cluster(agents=SPARE_AGENTS) as cluster:
            body = {**body, "return_token_ids": True}
            answer = clients.undisturbed(cluster, {"it": body})["it"]
            victim = sorted(layers_by_node(cluster))[0]

            def on_token(count):
                if count == after:
                    cluster.agent(victim).signal(number)

            self.assertEqual(history.check(clients.ask(cluster, body, on_token), answer), [])
            if number == signal.SIGKILL:
                self.assertNotIn(victim, layers_by_node(cluster))

    def test_a_killed_agent_loses_no_token(self):
        self.lose(BODY, signal.SIGKILL, 3)

    def test_a_killed_agent_loses_no_sampled_token(self):
        self.lose(SEEDED, signal.SIGKILL, 17)

    def test_a_frozen_agent_loses_no_token(self):
        self.lose(BODY, signal.SIGSTOP, 9)

    def test_without_a_plan_left_the_stream_ends_with_an_error(self):
        with harness.Cluster(agents=("cpu:threads=1",), serve=("--recovery-wait", "3")) as cluster:
            stream = cluster.stream("/v1/completions", {**BODY, "max_tokens": 400})
            payloads = []
            for payload in stream.payloads():
                payloads.append(payload)
                if len(payloads) == 3:
                    cluster.agent("a1").signal(signal.SIGKILL)
            self.assertEqual(payloads[-1], "[DONE]")
            self.assertIn("error", harness.json.loads(payloads[-2]))

    def test_drain_loses_nothing(self):
        # Room for the next generation beside the one that drains.
        roomy = tuple(agent.replace("120MiB", "400MiB") for agent in SPARE_AGENTS)
        with harness.Cluster(agents=roomy) as cluster:
            victim = sorted(layers_by_node(cluster))[0]
            with clients.Load(cluster, clients.undisturbed(cluster)) as load:
                harness.wait_for(lambda: load.finished >= 2, harness.START_S, cluster.tails)
                code, out, err = cluster.command("drain", victim, "--address", cluster.fabric)
                before = load.finished
                harness.wait_for(lambda: load.finished >= before + 2, harness.START_S, cluster.tails)
            self.assertEqual(code, 0, out + err)
            self.assertEqual((load.violations, load.refused), ([], 0))
            self.assertNotIn(victim, layers_by_node(cluster))


if __name__ == "__main__":
    unittest.main()
