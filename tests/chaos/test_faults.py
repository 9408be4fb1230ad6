"""What else may happen to agents and to the coordinator while clients stream. Every answer must be the
undisturbed one. HEXGEN_LONG=1 (tools/test.sh --long) runs all of it, the plain run a few."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import clients
import harness

DEVICE = "cpu:threads=1,memory=150MiB,speed={}"
AGENTS = {f"a{i + 1}": DEVICE.format(speed) for i, speed in enumerate((1, 0.9, 0.8, 0.7))}
THREE_STAGES = ("--stages", "1,1,1", "--layers", "12,10,8")
WHOLE = "cpu:threads=1,memory=400MiB"
FAKETIME = next(iter(sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
only_long = unittest.skipUnless(clients.LONG, "in tools/test.sh --long")


class Faults(unittest.TestCase):
    def under_load(self, cluster, act, clients_at_once=2, answers_after=2):
        """Runs act(load) between answers of a load; returns the load when it has stopped."""
        answers = clients.undisturbed(cluster)
        with clients.Load(cluster, answers, clients_at_once) as load:
            harness.wait_for(lambda: load.finished >= 2, harness.START_S, cluster.tails)
            act(load)
            before = load.finished
            harness.wait_for(lambda: load.finished >= before + answers_after, harness.START_S, cluster.tails)
        self.assertEqual(load.violations, [], cluster.serve.text()[-6000:])
        return load

    def pipeline(self, environment=None):
        cluster = harness.Cluster(agents=(), serve=THREE_STAGES, environment=environment)
        cluster.start()
        self.addCleanup(cluster.stop)
        for name, device in AGENTS.items():
            cluster.join(name, device)
        clients.full(cluster, AGENTS, stages=3)
        return cluster

    def freeze(self, seconds):
        cluster = self.pipeline()

        def act(_):
            victim = clients.nodes_of(clients.full(cluster, AGENTS, stages=3)[0])[1]
            cluster.agent(victim).signal(signal.SIGSTOP)
            time.sleep(seconds)
            cluster.agent(victim).signal(signal.SIGCONT)
            clients.full(cluster, AGENTS, stages=3)

        self.under_load(cluster, act)

    @only_long  # the plain run freezes an agent in tests/integration/test_cluster.py
    def test_frozen_for_5_s_it_comes_back(self):
        self.freeze(5)

    @only_long
    def test_frozen_for_60_s_it_comes_back(self):
        self.freeze(60)

    def test_leave_and_rejoin_inside_the_lease(self):
        cluster = self.pipeline()

        def act(_):
            for number in (signal.SIGKILL, signal.SIGTERM):
                victim = clients.nodes_of(clients.full(cluster, AGENTS, stages=3)[0])[1]
                cluster.agent(victim).signal(number)
                clients.restart(cluster, victim, AGENTS[victim])
                clients.full(cluster, AGENTS, stages=3)

        self.under_load(cluster, act)

    def test_a_duplicate_is_refused(self):
        cluster = self.pipeline()

        def act(_):
            stranger = harness.Process(cluster.folder, "duplicate", [
                "join", cluster.fabric, "--name", "a1", "--device", AGENTS["a1"], "--model", harness.model()],
                cluster.environment)
            try:
                harness.wait_for(lambda: "in use" in stranger.text(), 20, stranger.tail)
                self.assertTrue(cluster.agent("a1").alive())
                nodes = cluster.cluster()["nodes"]
                self.assertEqual([n["name"] for n in nodes].count("a1"), 1)
            finally:
                stranger.end()
            clients.full(cluster, AGENTS, stages=3)

        self.under_load(cluster, act)

    @only_long
    def test_a_flapping_node_is_damped(self):
        cluster = self.pipeline()

        def act(_):
            searches = cluster.cluster()["counts"]["searches"]
            for _ in range(12):
                clients.restart(cluster, "a2", AGENTS["a2"])
                time.sleep(0.9)
            # A node that comes and goes must not make the others move each time.
            self.assertLess(cluster.cluster()["counts"]["searches"] - searches, 60)
            clients.full(cluster, AGENTS, stages=3, seconds=90)

        self.under_load(cluster, act)

    @only_long
    def test_an_agent_that_has_become_slow_is_planned_around(self):
        devices = ("cpu:threads=1,memory=120MiB",) * 3  # any two hold the model
        with harness.Cluster(agents=devices) as cluster:
            names = [f"a{i + 1}" for i in range(len(devices))]
            most = max(clients.full(cluster, names)[0], key=lambda stage: stage["layers"])
            victim = most["devices"][0].split("/")[0]
            over = threading.Event()

            def slow():  # it stands still most of the time
                while not over.wait(0.005):
                    cluster.agent(victim).signal(signal.SIGSTOP)
                    time.sleep(0.02)
                    cluster.agent(victim).signal(signal.SIGCONT)

            def layers():
                return sum(s["layers"] for r in clients.serving(cluster) for s in r if s["devices"] == [f"{victim}/0"])

            def act(_):
                held = layers()
                self.assertGreater(held, 0)
                slowing = threading.Thread(target=slow)
                slowing.start()
                try:
                    harness.wait_for(lambda: f"event=straggler device={victim}/0" in cluster.serve.text(), 120,
                                     cluster.tails)
                    harness.wait_for(lambda: clients.serving(cluster) and layers() < held, 60, cluster.tails)
                finally:
                    over.set()
                    slowing.join()

            self.under_load(cluster, act)

    def test_all_replicas_lost_then_one_returns(self):
        with harness.Cluster(agents=(WHOLE, WHOLE)) as cluster:
            clients.full(cluster, ("a1", "a2"))

            def act(_):
                for name in ("a1", "a2"):
                    cluster.agent(name).signal(signal.SIGKILL)
                time.sleep(1)
                clients.restart(cluster, "a2", WHOLE)
                harness.wait_for(lambda: clients.serving(cluster), 30, cluster.tails)
                cluster.processes.remove(cluster.agent("a1"))

            self.under_load(cluster, act)

    @unittest.skipUnless(FAKETIME, "Debian's libfaketime is not installed")
    def test_clock_jumps_by_an_hour(self):
        folder = tempfile.mkdtemp(prefix="hexgen-clock-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        clock = pathlib.Path(folder) / "offset"
        clock.write_text("+0\n")
        cluster = self.pipeline({"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock),
                                 "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})

        def jump(offset, seconds):
            def set_clock(_):
                epoch = cluster.cluster()["epoch"]
                clock.write_text(offset + "\n")
                says = cluster.post(clients.COMPLETIONS, {**clients.WIDE, "max_tokens": 1}).json()["created"]
                self.assertAlmostEqual(says - time.time(), seconds, delta=60)  # else nothing is shown
                time.sleep(6)
                self.assertEqual(cluster.cluster()["epoch"], epoch, "a clock's jump must not move anything")
                clients.full(cluster, AGENTS, stages=3)
            return set_clock

        for offset, seconds in (("+1h", 3600), ("-1h", -3600), ("+0", 0))[:3 if clients.LONG else 1]:
            self.under_load(cluster, jump(offset, seconds))

    @only_long
    @unittest.skipUnless(os.geteuid() == 0, "a mount namespace needs root")
    def test_disk_full_while_loading(self):
        cluster = self.pipeline()

        def act(_):
            # Its cache, state, temporary and shared-memory folders have not a free byte.
            full = ("mkdir -p \"$XDG_STATE_HOME/full\"; for d in /dev/shm /tmp \"$HOME/.cache\"; do "
                    "[ -d $d ] || continue; mount -t tmpfs -o size=64k none $d && "
                    "dd if=/dev/zero of=$d/fill bs=4k status=none; done 2> /dev/null; exec \"$@\"")
            model = tempfile.mkdtemp(prefix="hexgen-model-", dir=harness.SOURCE)
            self.addCleanup(shutil.rmtree, model, ignore_errors=True)
            copy = os.path.join(model, os.path.basename(harness.model()))
            shutil.copy(harness.model(), copy)
            cluster.agent("a4").signal(signal.SIGKILL)
            state = os.path.join(model, "state")
            shutil.copytree(os.path.join(cluster.folder, "hexgen"), os.path.join(state, "hexgen"))
            environment = {**cluster.environment, "XDG_STATE_HOME": state}
            log = open(os.path.join(cluster.folder, "full.log"), "wb")
            child = subprocess.Popen(["unshare", "-m", "bash", "-c", full, "full", harness.binary(), "join",
                                      cluster.fabric, "--name", "a9", "--device", AGENTS["a4"], "--model", copy],
                                     env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=subprocess.STDOUT, start_new_session=True)
            try:
                time.sleep(4)
                # Whether it can serve or not, those that can must go on, also when it is needed.
                victim = clients.nodes_of(clients.serving(cluster)[0])[0]
                cluster.agent(victim).signal(signal.SIGKILL)
                clients.restart(cluster, victim, AGENTS[victim])
                time.sleep(4)
            finally:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                log.close()
            clients.restart(cluster, "a4", AGENTS["a4"])
            clients.full(cluster, AGENTS, stages=3)

        self.under_load(cluster, act)


class Coordinator(unittest.TestCase):
    """The coordinator dies; a gateway of its own process goes on."""

    def start_gateway(self, cluster):
        gateway = cluster.run("gateway", "gateway", "--join", cluster.fabric, "--port", "0", "--name", "g1",
                              "--model", harness.model(), "--fabric-port", "0")
        line = harness.wait_for(lambda: re.search(r"http://([\d.]+):(\d+)/v1", gateway.text()),
                                harness.START_S, cluster.tails)
        return View(cluster, line[1], int(line[2]))

    def killed_at(self, events):
        """Kills the coordinator when its log shows each of the events of a switch."""
        flags = ("--stages", "1,1,1", "--layers", "12,10,8", "--drain-ms", "3000")
        with harness.Cluster(agents=(), serve=flags) as cluster:
            for name, device in AGENTS.items():
                cluster.join(name, device.replace("150MiB", "300MiB"))
            clients.full(cluster, AGENTS, stages=3)
            view = self.start_gateway(cluster)
            harness.wait_for(lambda: view.get("/health").status == 200, harness.START_S, cluster.tails)
            answers = clients.undisturbed(view)
            with clients.Load(view, answers, 2) as load:
                for event in events:
                    harness.wait_for(lambda: load.finished >= 2, harness.START_S, cluster.tails)
                    self.switch_and_kill(cluster, event, flags)
                    before = load.finished
                    harness.wait_for(lambda: load.finished >= before + 3, harness.START_S, cluster.tails)
            self.assertEqual(load.violations, [], cluster.tails())

    def switch_and_kill(self, cluster, event, flags):
        """Starts a switch (an agent of the pipeline drains) and kills the coordinator at the event."""
        victim = clients.nodes_of(clients.full(cluster, AGENTS, stages=3)[0])[1]
        seen = len(re.findall(f"event={event} ", cluster.serve.text()))
        drain = subprocess.Popen([harness.binary(), "drain", victim, "--address", cluster.fabric],
                                 env=cluster.environment, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while len(re.findall(f"event={event} ", cluster.serve.text())) == seen:
            self.assertLess(time.monotonic(), end, f"no {event}\n{cluster.serve.text()[-4000:]}")
            time.sleep(0.001)
        cluster.serve.child.send_signal(signal.SIGKILL)
        cluster.serve.end()
        drain.wait(60)
        old = cluster.serve
        cluster.processes.remove(old)
        port = cluster.fabric.rsplit(":", 1)[1]
        cluster.serve = cluster.run("serve", "serve", harness.model(), "--served-model-name", "smollm2", "--device",
                                    "none", "--port", str(cluster.port), "--fabric-port", port, *flags)
        harness.wait_for(lambda: re.search(r"http://", cluster.serve.text()), harness.START_S, cluster.tails)
        clients.restart(cluster, victim, AGENTS[victim].replace("150MiB", "300MiB"))
        clients.full(cluster, AGENTS, stages=3)

    def test_killed_while_it_prepares(self):
        self.killed_at(("prepare",))

    @only_long
    def test_killed_in_each_phase_of_a_switch(self):
        self.killed_at(("prepare", "commit", "serving", "drain", "release"))


class View:
    """Another gateway's endpoint of a cluster, for the clients."""

    def __init__(self, cluster, host, port):
        self.inner = harness.Cluster(agents=())
        self.inner.host, self.inner.port, self.inner.api_key = host, port, cluster.api_key
        self.open, self.get = self.inner.open, self.inner.get


if __name__ == "__main__":
    unittest.main()
