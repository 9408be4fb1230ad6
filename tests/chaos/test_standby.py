"""Two that may be the coordinator, and an etcd whose lease says which: the other takes over, streams of a gateway that
is a process of its own do not pause, and nobody reloads."""

import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import unittest
import urllib.request

import clients
import harness
import history

ETCD = shutil.which("etcd")  # Debian's etcd-server
DEVICE = "cpu:threads=1,memory=120MiB,speed={}"
BODY = {**clients.MODES["greedy"], "max_tokens": 200}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@unittest.skipUnless(ETCD, "etcd-server is not installed")
class Standby(unittest.TestCase):
    def start_etcd(self, folder):
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        log = open(pathlib.Path(folder, "etcd.log"), "wb")
        self.addCleanup(log.close)
        etcd = subprocess.Popen([ETCD, "--data-dir", f"{folder}/etcd", "--listen-client-urls", client,
                                 "--advertise-client-urls", client, "--listen-peer-urls", peer,
                                 "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
                                stdout=log, stderr=log)
        self.addCleanup(etcd.wait)
        self.addCleanup(etcd.kill)

        def healthy():
            try:
                return json.load(urllib.request.urlopen(client + "/health", timeout=1))["health"] == "true"
            except OSError:
                return False
        harness.wait_for(healthy, 30, "etcd")
        return etcd, client.removeprefix("http://")

    def start(self):
        cluster = harness.Cluster(agents=(), ready=False)
        cluster.start()  # makes the folder and the environment; its own coordinator is not needed
        self.addCleanup(cluster.stop)
        cluster.serve.end()
        cluster.processes.remove(cluster.serve)
        self.etcd, etcd = self.start_etcd(cluster.folder)
        self.ports = [free_port() for _ in range(2)]
        cluster.fabric = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.serves = []
        for number, port in enumerate(self.ports):
            self.serves.append(self.serve(cluster, f"serve{number}", port, etcd))
            harness.wait_for(lambda: re.search("lease_acquired" if number == 0 else "standing by for 127.0.0.1:",
                                               self.serves[-1].text()), 30, self.serves[-1].tail)
        for i, speed in enumerate((1, 0.8)):
            cluster.join(f"a{i + 1}", DEVICE.format(speed))
        gateway = cluster.run("gateway", "gateway", "--join", cluster.fabric, "--port", "0", "--model", harness.model())
        cluster.port = int(harness.wait_for(lambda: re.search(r"http://[^:]+:(\d+)/v1", gateway.text()),
                                            harness.START_S, gateway.tail)[1])
        harness.wait_for(lambda: cluster.get("/health").status == 200, harness.START_S, cluster.tails)
        cluster.serve = self.serves[0]
        return cluster, etcd

    def serve(self, cluster, name, port, etcd):
        return cluster.run(name, "serve", harness.model(), "--served-model-name", "smollm2", "--device", "none",
                           "--port", "0", "--fabric-port", str(port), "--etcd", etcd)

    def test_the_standby_takes_over(self):
        cluster, etcd = self.start()
        answer = history.answer_of(clients.ask(cluster, BODY))

        def on_token(count):
            if count == 20:
                self.serves[0].end()

        transcript = clients.ask(cluster, BODY, on_token)
        cluster.processes.remove(self.serves[0])
        cluster.serve = self.serves[1]
        self.assertEqual(history.check(transcript, answer), [])
        harness.wait_for(lambda: "event=adopted" in self.serves[1].text(), 30, cluster.tails)
        self.assertNotIn("event=prepare", self.serves[1].text())
        # The first one comes back and stands by in its turn; the agents' next coordinator is again one of the two.
        again = self.serve(cluster, "again", self.ports[0], etcd)
        harness.wait_for(lambda: "standing by for" in again.text(), 30, again.tail)
        self.assertEqual(history.check(clients.ask(cluster, BODY), answer), [])
        self.serves[1].signal(signal.SIGTERM)  # it gives the lease back
        cluster.processes.remove(self.serves[1])
        cluster.serve = again
        harness.wait_for(lambda: "event=adopted" in again.text(), 30, cluster.tails)
        self.assertEqual(history.check(clients.ask(cluster, BODY), answer), [])
        self.serves[1].end()

    def test_a_coordinator_that_stood_still_is_none_any_more(self):
        cluster, _ = self.start()
        first = self.serves[0]
        first.signal(signal.SIGSTOP)
        harness.wait_for(lambda: "event=adopted" in self.serves[1].text(), 60, cluster.tails)
        first.signal(signal.SIGCONT)
        cluster.processes.remove(first)
        cluster.serve = self.serves[1]
        self.assertEqual(first.child.wait(timeout=10), 1)
        self.assertIn("event=lease_lost", first.text())

    def test_without_etcd_nobody_goes_on_for_long(self):
        cluster, _ = self.start()
        self.etcd.kill()
        cluster.processes.remove(self.serves[0])
        cluster.serve = self.serves[1]
        self.assertEqual(self.serves[0].child.wait(timeout=30), 1)
        answer = clients.ask(cluster, BODY)  # what serves, serves on
        self.assertEqual(answer.status, 200)
        harness.wait_for(lambda: "standing by: etcd" in self.serves[1].text(), 30, cluster.tails)


if __name__ == "__main__":
    unittest.main()
