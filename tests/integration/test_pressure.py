"""Clients that stop reading, ten times more load than fits, and clients that leave all the time: what the others see,
and that memory, descriptors and blocks come back. The plain run has short forms; --long has the whole ones. Figures
are printed; asserted is only what a slow machine cannot change."""

import itertools
import json
import os
import random
import socket
import threading
import time
import unittest

import harness

LONG = bool(os.environ.get("HEXGEN_LONG"))
MIB = 1 << 20
# A sanitizer's own memory grows with the program's.
MEMORY_SCALE = float(os.environ.get("HEXGEN_MEMORY_SCALE", "1"))
BODY = {"temperature": 0, "ignore_eos": True}


def prompt(number):
    return [1000 + (7 * number + i) % 20000 for i in range(12)]


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def resident(process):
    with open(f"/proc/{process.child.pid}/status") as f:
        return 1024 * int(next(line.split()[1] for line in f if line.startswith("VmRSS:")))


def descriptors(process):
    return len(os.listdir(f"/proc/{process.child.pid}/fd"))


def idle(cluster):
    loads = cluster.loads()
    return (cluster.metric("vllm:num_requests_running") == 0 and cluster.metric("vllm:num_requests_waiting") == 0
            and loads and all(one["running"] == one["waiting"] == 0 and one["free_blocks"] == one["blocks"]
                              for one in loads))


def gaps(cluster, number, tokens):
    """Seconds between the chunks of one streamed answer."""
    seen, stream = [], cluster.stream("/v1/completions", {**BODY, "prompt": prompt(number), "max_tokens": tokens})
    for payload in stream.payloads():
        if payload != "[DONE]":
            seen.append(time.monotonic())
    stream.close()
    assert len(seen) == tokens, len(seen)
    return [b - a for a, b in zip(seen, seen[1:])]


class Silent:
    """A client that asks for a stream and reads nothing of it."""

    def __init__(self, cluster, number, tokens):
        body = json.dumps({**BODY, "prompt": prompt(number), "max_tokens": tokens, "stream": True, "logprobs": 5})
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.socket.connect((cluster.host, cluster.port))
        self.socket.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                            .encode())

    def close(self):
        self.socket.close()


class Pressure(unittest.TestCase):
    def test_clients_that_stop_reading(self):
        """Beside clients that read nothing, tokens come as fast as beside as many that read."""
        others, tokens = (100, 200) if LONG else (24, 40)
        with harness.Cluster(agents=("cpu:threads=2",), serve=("--max-num-seqs", "128")) as cluster:
            gaps(cluster, 0, 20)

            def beside():
                return list(itertools.chain(*harness.together(
                    [lambda i=i: gaps(cluster, 500 + i, tokens) for i in range(4)])))

            readers = [threading.Thread(target=gaps, args=(cluster, i, tokens)) for i in range(others)]
            for one in readers:
                one.start()
            reading = beside()
            for one in readers:
                one.join()
            harness.wait_for(lambda: idle(cluster), 30, "an idle cluster")
            before = resident(cluster.serve)
            silent = [Silent(cluster, 1000 + i, tokens) for i in range(others)]
            not_reading = beside()
            # Their answers end though nobody reads them; what is unread is bounded.
            harness.wait_for(lambda: idle(cluster), 120, "an idle cluster")
            grown = resident(cluster.serve) - before
            for one in silent:
                one.close()
            print(f"    4 clients beside {others}: p99 between tokens {1e3 * percentile(reading, 0.99):.1f} ms while "
                  f"they read, {1e3 * percentile(not_reading, 0.99):.1f} ms while they do not "
                  f"({percentile(not_reading, 0.99) / percentile(reading, 0.99):.2f}x); {grown / MIB:.1f} MiB unread",
                  flush=True)
            self.assertLess(grown, others * 1.5 * MIB + 16 * MIB)

    def test_ten_times_what_fits(self):
        """Whoever finds no place hears so; nobody hangs; memory stays; places are used to the end."""
        seconds, places, waiting = (60, 4, 4) if LONG else (8, 4, 4)
        # Little memory, so that the first load touches all of the KV pool: its pages are taken when first used.
        with harness.Cluster(agents=("cpu:threads=2,memory=125MiB",), serve=(
                "--max-num-seqs", str(places), "--max-num-queued-reqs", str(waiting), "--max-model-len", "256",
                "--kv-tokens", "256")) as cluster:

            def load(clients, for_s):
                accepted, refused, wrong = [], [], []
                until = time.monotonic() + for_s

                def client(number):
                    for turn in itertools.count():
                        began = time.monotonic()
                        if began > until:
                            return
                        try:
                            reply = cluster.post("/v1/completions", {**BODY, "prompt": prompt(100 * number + turn),
                                                                     "max_tokens": 16}, timeout=60)
                        except OSError as e:
                            wrong.append(repr(e))
                            return
                        took = time.monotonic() - began
                        if reply.status == 200:
                            accepted.append(took)
                        elif reply.status == 429 and int(reply.headers["Retry-After"]) >= 1:
                            refused.append(took)
                            time.sleep(0.5)
                        else:
                            wrong.append((reply.status, reply.body))
                harness.together([lambda i=i: client(i) for i in range(clients)])
                return accepted, refused, wrong

            alone, turned_away, wrong = load(places + waiting, seconds / 2)
            self.assertEqual((turned_away, wrong), ([], []))
            harness.wait_for(lambda: idle(cluster), 30, "an idle cluster")
            processes = (cluster.serve, cluster.agent("a1"))
            before = [resident(p) for p in processes]
            accepted, refused, wrong = load(10 * (places + waiting), seconds)
            self.assertEqual(wrong, [])
            harness.wait_for(lambda: idle(cluster), 30, "an idle cluster")
            grown = [resident(p) - b for p, b in zip(processes, before)]
            print(f"    {places + waiting} clients: {len(alone)} served, p99 {1e3 * percentile(alone, 0.99):.0f} ms; "
                  f"{10 * (places + waiting)} clients: {len(accepted)} served, p99 "
                  f"{1e3 * percentile(accepted, 0.99):.0f} ms, {len(refused)} refused, p50 "
                  f"{1e3 * percentile(refused, 0.5):.0f} ms, p99 {1e3 * percentile(refused, 0.99):.0f} ms; memory "
                  f"{grown[0] / MIB:+.1f} and {grown[1] / MIB:+.1f} MiB", flush=True)
            self.assertGreater(len(accepted), 0)
            self.assertGreater(len(refused), 0)
            self.assertLess(max(grown), 64 * MIB * MEMORY_SCALE)

    def test_soak_with_cancels(self):
        """Six clients, of which every other one leaves at some moment of its answer."""
        seconds = 1800 if LONG else 12
        # Little memory, so that the first quarter touches all of the KV pool: its pages are taken when first used.
        with harness.Cluster(agents=("cpu:threads=2,memory=170MiB",), serve=("--max-num-seqs", "8",
                                                                             "--max-model-len", "1024")) as cluster:
            processes = (cluster.serve, cluster.agent("a1"))
            counts = {"whole": 0, "left": 0}
            until = [0.0]

            def client(number):
                draw = random.Random(number)
                while time.monotonic() < until[0]:
                    body = {**BODY, "prompt": prompt(draw.randrange(50)) * draw.randint(1, 20), "seed": 1,
                            "max_tokens": draw.randint(1, 40), "n": draw.choice((1, 1, 1, 3)),
                            "stream": draw.random() < 0.6}
                    connection = cluster.open("POST", "/v1/completions", body)
                    if draw.random() < 0.5:
                        time.sleep(draw.random() * 0.3)
                        if body["stream"] and draw.random() < 0.5:
                            connection.sock.recv(100)
                        counts["left"] += 1
                    else:
                        reply = connection.getresponse()
                        reply.read()
                        self.assertEqual(reply.status, 200)
                        counts["whole"] += 1
                    connection.close()

            def run(for_s):
                until[0] = time.monotonic() + for_s
                harness.together([lambda i=i: client(i) for i in range(6)])
                harness.wait_for(lambda: idle(cluster), 30, lambda: f"busy: {cluster.cluster()['plan']['replicas']}")

            run(seconds / 4)  # until pools and caches have their size
            memory = [resident(p) for p in processes]
            files = [descriptors(p) for p in processes]
            run(seconds)
            grown = [resident(p) - b for p, b in zip(processes, memory)]
            print(f"    {counts['whole']} whole answers, {counts['left']} left; memory {grown[0] / MIB:+.1f} and "
                  f"{grown[1] / MIB:+.1f} MiB", flush=True)
            self.assertGreater(min(counts.values()), 0)
            harness.wait_for(lambda: all(descriptors(p) <= f for p, f in zip(processes, files)), 10,
                             lambda: f"descriptors: {[descriptors(p) for p in processes]}, were {files}")
            self.assertLess(max(grown), 32 * MIB * MEMORY_SCALE)


if __name__ == "__main__":
    unittest.main()
