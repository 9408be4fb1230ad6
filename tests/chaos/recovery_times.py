#!/usr/bin/env python3
"""How long recovery takes: kill (or freeze) to detection, to a working plan, to the next token.

    tests/chaos/recovery_times.py [--kills 30] [--freezes 30] [--rows FILE.json]

Three agents hold the model, one stands by; one client streams. Times are the coordinator's log's and the client's."""

import argparse
import datetime
import json
import pathlib
import re
import signal
import sys
import time

import clients
import harness
import history
import kill_matrix

BODY = {**clients.MODES["greedy"], "max_tokens": 200}


def stamp(line):
    text = re.match(r"time=(\S+)Z ", line)[1]
    return datetime.datetime.fromisoformat(text + "+00:00").timestamp()


def events(cluster, after):
    """(time, event) of the coordinator's log since the wall-clock time `after`."""
    out = []
    for line in cluster.serve.text().splitlines():
        found = re.match(r"time=\S+Z process=coordinator event=(\S+)", line)
        if found and stamp(line) >= after - 0.001:
            out.append((stamp(line), found[1]))
    return out


def first(found, names):
    return next((at for at, name in found if name in names), None)


def lose(matrix, answer, number):
    """One agent of the middle is lost in the middle of an answer: seconds to each stage of recovery."""
    cluster = matrix.cluster
    victim = clients.nodes_of(clients.full(cluster, matrix.agents, stages=3)[0])[matrix.kills % 3]
    at = {}

    def on_token(count):
        if count == 20:
            at["wall"], at["mono"] = time.time(), time.monotonic()
            cluster.agent(victim).signal(number)

    transcript = clients.ask(cluster, BODY, on_token)
    matrix.kills += 1
    matrix.violations += history.check(transcript, answer)
    found = events(cluster, at["wall"])
    # Tokens that were on their way when it died do not count: the next token after the new plan serves.
    working = first(found, ("serving",))
    resumed = [t - at["mono"] for t in transcript.times() if t - at["mono"] > working - at["wall"]]
    detected = first(found, ("node_suspect", "node_gone", "generation_failed"))
    device = matrix.agents.pop(victim)
    cluster.agent(victim).end()
    matrix.start_agent(device)
    return detected - at["wall"], working - at["wall"], resumed[0] if resumed else None


def table(name, rows):
    for column, what in enumerate(("detection", "working plan", "first resumed token")):
        values = [row[column] for row in rows if row[column] is not None]
        print(f"| {name} | {what} | {len(values)} | {clients.percentile(values, 50):.3f} | "
              f"{clients.percentile(values, 99):.3f} |", flush=True)


def measure(matrix, answer, name, number, count, kept):
    """Rows of `count` losses, with those of earlier runs in the file `kept`; each is in it at once."""
    rows = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for _ in range(count):
        rows.setdefault(name, []).append(lose(matrix, answer, number))
        if kept:
            kept.write_text(json.dumps(rows))
    return rows.get(name, [])


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=30)
    options.add_argument("--freezes", type=int, default=30)
    options.add_argument("--rows", type=pathlib.Path, help="keeps the times, so that several runs make one table")
    given = options.parse_args()
    violations = []
    with harness.Cluster(agents=(), serve=kill_matrix.LAYOUT) as cluster:
        matrix = kill_matrix.Matrix(cluster)
        answer = clients.undisturbed(cluster, {"long": BODY})["long"]
        print("| fault | seconds to | times | median | p99 |\n|---|---|---|---|---|")
        for name, number, count in (("killed", signal.SIGKILL, given.kills), ("frozen", signal.SIGSTOP, given.freezes)):
            rows = measure(matrix, answer, name, number, count, given.rows)
            if rows:
                table(name, rows)
        violations += matrix.violations
    for one in violations:
        print("WRONG", one)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
