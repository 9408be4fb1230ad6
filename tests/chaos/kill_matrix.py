#!/usr/bin/env python3
"""Kills agents of a three-stage pipeline at exact points of an answer, with SIGKILL:
each stage x prefill, token 0, 1, 5, 20 x greedy, seeded, penalties, JSON schema.

A fourth agent stands by, another is started for the dead one, and the cluster must become full again.
(Under a name of its own: a name that dies often is planned with later each time, see test_faults.py.)
Two more clients stream all the time. Every answer must be the undisturbed one, byte for byte.

    tests/chaos/kill_matrix.py [--rounds 4] [--short] [--seed 1] [--stage-recovery]

240 kills with --rounds 4; 10 with --short. Exit code 1 when an answer was not the undisturbed one."""

import argparse
import itertools
import random
import signal
import sys
import threading
import time

import clients
import harness
import history

STAGES, MOMENTS = range(3), ("prefill", 0, 1, 5, 20)
DEVICE = "cpu:threads=1,memory=150MiB,speed={}"
SPEEDS = (1, 0.9, 0.8, 0.7)
LAYOUT = ("--stages", "1,1,1", "--layers", "12,10,8")
# Long enough that its prefill takes some tenths of a second.
PREFILL = " ".join(f"Then number {i} came in and said hello." for i in range(60))


def cells():
    return list(itertools.product(STAGES, MOMENTS, clients.MODES))


def short_cells():
    """Every moment twice, every stage and every mode at least twice."""
    modes = list(clients.MODES)
    return [((i + j) % 3, moment, modes[(i + 2 * j) % 4]) for j in range(2) for i, moment in enumerate(MOMENTS)]


class Matrix:
    def __init__(self, cluster, long=tuple(clients.MODES)):
        self.cluster, self.kills, self.missed, self.violations = cluster, 0, 0, []
        self.agents = {}
        for speed in SPEEDS:
            self.start_agent(DEVICE.format(speed))
        clients.full(cluster, self.agents, stages=3)
        self.bodies = dict(clients.MODES)
        self.bodies.update({f"{mode} after a long prompt": {**clients.MODES[mode], "prompt":
                                                            PREFILL + clients.MODES[mode]["prompt"]} for mode in long})
        self.answers = clients.undisturbed(cluster, self.bodies)
        self.recoveries = []

    def start_agent(self, device):
        name = f"a{len(self.cluster.processes):03d}"
        self.agents[name] = device
        self.cluster.join(name, device)

    def kill(self, stage, moment, mode):
        """One kill. False: the first token had come before the kill of a prefill."""
        replica = clients.full(self.cluster, self.agents, stages=3)[0]
        victim = clients.nodes_of(replica)[stage]
        name = f"{mode} after a long prompt" if moment == "prefill" else mode
        state = {"at": None, "tokens": 0}

        def strike():
            self.cluster.agent(victim).signal(signal.SIGKILL)
            state["at"], state["wall"], state["tokens_then"] = time.monotonic(), time.time(), state["tokens"]

        def on_token(count):
            state["tokens"] = count
            if moment == "prefill" and count == 0:
                threading.Timer(0.05, strike).start()
            elif moment != "prefill" and count == moment + 1:
                strike()

        transcript = clients.ask(self.cluster, self.bodies[name], on_token, name)
        harness.wait_for(lambda: state["at"], 5, "the kill")
        self.start_agent(self.agents.pop(victim))
        precise = state["tokens_then"] == (0 if moment == "prefill" else moment + 1)
        self.kills += 1
        self.missed += not precise
        self.recoveries.append(clients.recovery(self.cluster, transcript, state["wall"], state["at"]))
        self.violations += [f"stage {stage} ({victim}), {moment}, {mode}: {wrong}"
                            for wrong in history.check(transcript, self.answers[name])]
        return precise


def run(chosen, report=print, background=2, flags=()):
    """Runs the cells (stage, moment, mode); returns (kills, violations, seconds from kill to token)."""
    with harness.Cluster(agents=(), serve=LAYOUT + flags) as cluster:
        matrix = Matrix(cluster, {mode for _, moment, mode in chosen if moment == "prefill"})
        with clients.Load(cluster, {m: matrix.answers[m] for m in clients.MODES}, background) as load:
            for stage, moment, mode in chosen:
                before = len(matrix.violations) + len(load.violations)
                for _ in range(3):
                    if matrix.kill(stage, moment, mode):
                        break
                found = (matrix.violations + load.violations)[before:]
                resumed = matrix.recoveries[-1][-1]
                report(f"stage {stage}, {moment}, {mode}: "
                       + (f"{resumed:.3f} s to the next token" if resumed is not None else "")
                       + "".join(f"\n  WRONG {one}" for one in found))
        clients.full(cluster, matrix.agents, stages=3)
        violations = matrix.violations + load.violations
        if matrix.missed > len(chosen):
            violations.append(f"{matrix.missed} kills were not at their moment")
        if violations:
            report(cluster.serve.text()[-6000:])
        return {"kills": matrix.kills, "answers": matrix.kills + load.finished, "violations": violations,
                "recoveries": matrix.recoveries, "missed": matrix.missed, "refused": load.refused}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=4, help="times 60 kills")
    options.add_argument("--short", action="store_true", help="10 kills")
    options.add_argument("--seed", type=int, default=1, help="of the order")
    options.add_argument("--stage-recovery", action="store_true", help="serve with it")
    given = options.parse_args()
    chosen = short_cells() if given.short else cells() * given.rounds
    random.Random(given.seed).shuffle(chosen)
    began = time.monotonic()
    out = run(chosen, lambda line: print(line, flush=True), flags=("--stage-recovery",) * given.stage_recovery)
    print(f"{out['kills']} kills ({out['missed']} beside their moment), {out['answers']} answers, "
          f"{out['refused']} refused with 503, {len(out['violations'])} violations; {time.monotonic() - began:.0f} s")
    print(clients.TABLE_HEAD, clients.table("killed", out["recoveries"]), sep="\n")
    return 1 if out["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
