#!/usr/bin/env python3
"""How long recovery takes: kill (or freeze) to detection, to a working plan, to the next token.

    tests/chaos/recovery_times.py [--kills 30] [--freezes 30] [--rows FILE.json]

Three agents hold the model, one stands by; one client streams. Times are the coordinator's log's and the client's."""

import argparse
import json
import pathlib
import signal
import sys
import time

import clients
import harness
import history
import kill_matrix

BODY = {**clients.MODES["greedy"], "max_tokens": 200}


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
    row = clients.recovery(cluster, transcript, at["wall"], at["mono"])
    device = matrix.agents.pop(victim)
    cluster.agent(victim).end()
    matrix.start_agent(device)
    return row


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
        print(clients.TABLE_HEAD)
        for name, number, count in (("killed", signal.SIGKILL, given.kills), ("frozen", signal.SIGSTOP, given.freezes)):
            rows = measure(matrix, answer, name, number, count, given.rows)
            if rows:
                print(clients.table(name, rows), flush=True)
        violations += matrix.violations
    for one in violations:
        print("WRONG", one)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
