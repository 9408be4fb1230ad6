#!/usr/bin/env python3
"""A join or a leave every few seconds under load: nothing is lost, memory and descriptors stay flat.

    tests/chaos/churn.py [--minutes 120] [--period 10] [--clients 2] [--seed 1]

Agents that hold half of the model each come and go (SIGKILL, SIGTERM, drain), so that two to five of them are
there at any time. Exit code 1 when an answer was not the undisturbed one, or the coordinator's process grew."""

import argparse
import os
import pathlib
import random
import signal
import sys
import time

import clients
import harness

DEVICE = "cpu:threads=1,memory=120MiB,speed={}"
LEAST, MOST = 3, 5


def usage_of(pid):
    """(resident MiB, descriptors, threads) of a process."""
    folder = pathlib.Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    return (pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(list((folder / "fd").iterdir())),
            len(list((folder / "task").iterdir())))


class Churn:
    def __init__(self, cluster, seed):
        self.cluster, self.random, self.names, self.joined = cluster, random.Random(seed), [], 0
        self.changes = {"join": 0, "SIGKILL": 0, "SIGTERM": 0, "drain": 0}
        for _ in range(LEAST):
            self.join()

    def join(self):
        self.joined += 1
        self.changes["join"] += 1
        name = f"c{self.joined:04d}"
        self.names.append(name)
        self.cluster.join(name, DEVICE.format(self.random.choice((1, 0.8, 0.6))))

    def leave(self):
        name = self.names.pop(self.random.randrange(len(self.names)))
        way = self.random.choice(("SIGKILL", "SIGTERM", "drain"))
        self.changes[way] += 1
        agent = self.cluster.agent(name)
        if way == "drain":
            self.cluster.command("drain", name, "--address", self.cluster.fabric)
        elif way == "SIGTERM":
            agent.signal(signal.SIGTERM)
            harness.wait_for(lambda: not agent.alive(), 30, agent.tail)
        agent.end()
        self.cluster.processes.remove(agent)
        agent.log.unlink()

    def change(self):
        if len(self.names) <= LEAST or (len(self.names) < MOST and self.random.random() < 0.5):
            self.join()
        else:
            self.leave()


def run(minutes, period=10, at_once=2, seed=1, report=print):
    with harness.Cluster(agents=()) as cluster:
        churn = Churn(cluster, seed)
        clients.full(cluster, churn.names)
        answers = clients.undisturbed(cluster)
        samples, end, number = [], time.monotonic() + minutes * 60, 0
        began = time.monotonic()
        with clients.Load(cluster, answers, at_once) as load:
            while time.monotonic() < end and not load.violations:
                number += 1
                churn.change()
                time.sleep(max(0, began + number * period - time.monotonic()))
                samples.append(usage_of(cluster.serve.child.pid))
                if number % 6 == 0:
                    report(f"{number * period:5d} s: {number} changes, {load.finished} answers, "
                           "%.0f MiB, %d descriptors, %d threads" % samples[-1])
        clients.full(cluster, churn.names)
        if load.violations:
            report(cluster.tails())
        return {"changes": churn.changes, "answers": load.finished, "refused": load.refused,
                "violations": load.violations, "samples": samples}


def grown(samples):
    """What grew from the second quarter to the last one; the first one is warm-up. Empty: nothing."""
    quarter = len(samples) // 4
    if quarter < 3:
        return []
    words = []
    for name, column, allowed in (("memory (MiB)", 0, 0.10), ("descriptors", 1, 0.10), ("threads", 2, 0.10)):
        before = clients.percentile([s[column] for s in samples[quarter:2 * quarter]], 50)
        after = clients.percentile([s[column] for s in samples[-quarter:]], 50)
        if after > before * (1 + allowed) + 4:
            words.append(f"{name} grew from {before:.0f} to {after:.0f}")
    return words


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=120)
    options.add_argument("--period", type=int, default=10, help="seconds between changes")
    options.add_argument("--clients", type=int, default=2)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    out = run(given.minutes, given.period, given.clients, given.seed, lambda line: print(line, flush=True))
    wrong = out["violations"] + grown(out["samples"])
    for one in wrong:
        print("WRONG", one)
    first, last = out["samples"][len(out["samples"]) // 4], out["samples"][-1]
    print(f"{out['changes']}, {out['answers']} answers, {out['refused']} refused with 503, {len(wrong)} wrong; "
          "%.0f MiB, %d descriptors, %d threads after a quarter, " % first + "%.0f, %d, %d at the end" % last)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
