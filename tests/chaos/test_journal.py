"""Clients that lose their connection, or their gateway, and return for the rest of their answer."""

import re
import signal
import tempfile
import unittest

import clients
import harness
import history

AGENTS = {"a1": "cpu:threads=1,memory=120MiB", "a2": "cpu:threads=1,memory=120MiB"}


class Journal(unittest.TestCase):
    def start_gateway(self, cluster, folder):
        self.gateways = getattr(self, "gateways", 0) + 1
        self.process = cluster.run(f"gateway{self.gateways}", "gateway", "--join", cluster.fabric, "--port", "0", "--model",
                                   harness.model(), "--journal", folder)
        line = harness.wait_for(lambda: re.search(r"http://([\d.]+):(\d+)/v1", self.process.text()),
                                harness.START_S, cluster.tails)
        view = harness.Cluster(agents=())
        view.host, view.port = line[1], int(line[2])
        return view

    def read(self, view, body, name, after=None, events=None):
        """(number, payload) of the stream `name`, at most `events` of them; then the connection is closed."""
        headers = {"x-request-id": name, **({} if after is None else {"Last-Event-ID": str(after)})}
        connection = view.open("POST", clients.COMPLETIONS, {**body, "stream": True}, headers)
        response = connection.getresponse()
        self.assertEqual(response.status, 200, response.read() if response.status != 200 else "")
        got, number = [], None
        for raw in response:
            line = raw.decode().rstrip("\n")
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                got.append((number, line[6:]))
                if len(got) == events:
                    break
        response.close()
        connection.close()
        return got

    def check(self, parts, expected):
        transcript = history.Transcript()
        transcript.status = 200
        self.assertEqual([number for number, _ in parts], list(range(1, len(parts) + 1)))
        for number, payload in parts:
            transcript.add(payload, number)
        self.assertEqual(history.check(transcript, expected), [])

    def test_the_rest_of_an_answer(self):
        with harness.Cluster(agents=()) as cluster, tempfile.TemporaryDirectory() as folder:
            for name, device in AGENTS.items():
                cluster.join(name, device)
            clients.full(cluster, AGENTS)
            answers = clients.undisturbed(cluster, {m: clients.MODES[m] for m in ("penalties", "schema")})
            view = self.start_gateway(cluster, folder)
            for mode, expected in answers.items():
                body = clients.MODES[mode]
                # The connection breaks; the two last events did not arrive.
                first = self.read(view, body, mode, events=6)[:4]
                self.check(first + self.read(view, body, mode, after=4), expected)
                # The gateway dies in the middle.
                name = mode + "-killed"
                first = self.read(view, body, name, events=6)[:4]
                self.process.signal(signal.SIGKILL)
                self.process.end()
                cluster.processes.remove(self.process)
                view = self.start_gateway(cluster, folder)
                rest = self.read(view, body, name, after=4)
                self.check(first + rest, expected)
                # It is over, and may be read again.
                self.assertEqual(self.read(view, body, name, after=4), rest)


if __name__ == "__main__":
    unittest.main()
