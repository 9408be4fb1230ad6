"""Two that may be the coordinator, and an etcd whose lease says which: the other takes over, streams of a gateway that
is a process of its own do not pause, and nobody reloads."""

import json
import pathlib
import re
import shutil
import signal
import socket
import ssl
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
    def start_etcd(self, folder, files=None):
        """`files`: (certificate, key), for TLS, where clients must show the same certificate."""
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        trust, flags = None, []
        if files:
            client = client.replace("http:", "https:")
            flags = ["--cert-file", files[0], "--key-file", files[1], "--client-cert-auth", "--trusted-ca-file", files[0]]
            trust = ssl.create_default_context(cafile=files[0])
            trust.load_cert_chain(*files)
        log = open(pathlib.Path(folder, "etcd.log"), "wb")
        self.addCleanup(log.close)
        etcd = subprocess.Popen([ETCD, "--data-dir", f"{folder}/etcd", "--listen-client-urls", client,
                                 "--advertise-client-urls", client, "--listen-peer-urls", peer,
                                 "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", *flags],
                                stdout=log, stderr=log)
        self.addCleanup(etcd.wait)
        self.addCleanup(etcd.kill)

        def healthy():
            try:
                return json.load(urllib.request.urlopen(client + "/health", timeout=1, context=trust))["health"] == "true"
            except OSError:
                return False
        harness.wait_for(healthy, 30, "etcd")
        return etcd, client.removeprefix("http://")

    def certificate(self, folder, name):
        """A key and a certificate for 127.0.0.1 that vouches for itself."""
        files = [f"{folder}/{name}.{what}" for what in ("crt", "key")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
        return files

    @unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_etcd_in_tls(self):
        cluster = harness.Cluster(agents=(), ready=False)
        cluster.start()
        self.addCleanup(cluster.stop)
        ours, other = (self.certificate(cluster.folder, name) for name in ("ours", "other"))
        _, etcd = self.start_etcd(cluster.folder, ours)
        both = {}
        for name, (certificate, key) in {"ours": ours, "other": other}.items():
            both[name] = pathlib.Path(cluster.folder, f"{name}.pem")
            both[name].write_bytes(b"".join(pathlib.Path(f).read_bytes() for f in (certificate, key)))
        for name, flags, says in (
                ("unknown", ("--etcd-identity", both["ours"]), "certificate verify failed"),
                ("another", ("--etcd-ca", other[0], "--etcd-identity", both["ours"]), "certificate verify failed"),
                ("stranger", ("--etcd-ca", ours[0], "--etcd-identity", both["other"]), "standing by: etcd"),
                ("right", ("--etcd-ca", ours[0], "--etcd-identity", both["ours"]), "event=lease_acquired")):
            serve = self.serve(cluster, name, free_port(), etcd, *map(str, flags))
            harness.wait_for(lambda: says in serve.text(), 30, serve.tail)
            self.assertEqual("lease_acquired" in serve.text(), name == "right")

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

    def serve(self, cluster, name, port, etcd, *flags):
        return cluster.run(name, "serve", harness.model(), "--served-model-name", "smollm2", "--device", "none",
                           "--port", "0", "--fabric-port", str(port), "--etcd", etcd, *flags)

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
