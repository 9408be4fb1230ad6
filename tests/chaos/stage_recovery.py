#!/usr/bin/env python3
"""A stage is lost with a long context: what it costs to compute its layers alone again (--stage-recovery), and to
compute everything again.

    tests/chaos/stage_recovery.py [--contexts 1024,4096] [--times 5] [--only with|without] [--stage 1]

Three agents hold the model, one stands by. The agent of stage 1 (counted from 0) is killed (SIGKILL) at an answer's tenth token;
the answer must be the undisturbed one. Exit code 1 when one was not, or when the setting was not made use of."""

import argparse
import random
import signal
import sys
import time

import clients
import harness
import history

DEVICE = "cpu:threads=1,memory=400MiB"
LAYERS = (10, 10, 10)
KEPT = 2 * 4 * 576  # bytes a position: what two stages pass on, SmolLM2-135M
STRIKE_AT, TOKENS = 10, 24


class Pipeline:
    def __init__(self, cluster, recovery):
        self.cluster, self.recovery, self.agents = cluster, recovery, {}
        for _ in range(4):
            self.start_agent()

    def start_agent(self):
        name = f"a{len(self.cluster.processes):03d}"
        self.agents[name] = DEVICE
        self.cluster.join(name, DEVICE)

    def lose(self, prompt, stage):
        """(violations, seconds from the kill to the new plan, from there to the next token)."""
        body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        victim = clients.nodes_of(clients.full(self.cluster, self.agents, stages=3)[0])[stage]
        answer = history.answer_of(clients.ask(self.cluster, body))
        at = {}

        def on_token(count):
            if count == STRIKE_AT:
                at["wall"], at["mono"] = time.time(), time.monotonic()
                self.cluster.agent(victim).signal(signal.SIGKILL)

        transcript = clients.ask(self.cluster, body, on_token)
        found = clients.events(self.cluster, at["wall"])
        serving = clients.first(found, "serving") - at["wall"]
        after = [t - at["mono"] for t in transcript.times() if t - at["mono"] > serving]
        wrong = history.check(transcript, answer)
        inherited = clients.first(found, "inherit") is not None
        if inherited != self.recovery:
            wrong.append("the KV was " + ("inherited" if inherited else "not inherited"))
        self.agents.pop(victim)
        self.cluster.agent(victim).end()
        self.start_agent()
        return wrong, serving, after[0] - serving if after else None


def run(contexts, times, report=print, modes=(False, True), stage=1):
    """Rows (context, with --stage-recovery, plan median s, plan to token median s), and violations."""
    rows, wrong, words = [], [], random.Random(1)
    for recovery in modes:
        flags = ("--stages", "1,1,1", "--layers", ",".join(map(str, LAYERS)), "--kv-tokens", str(max(contexts) + 64),
                 "--max-model-len", str(max(contexts) + 64)) + (("--stage-recovery",) if recovery else ())
        with harness.Cluster(agents=(), serve=flags) as cluster:
            pipeline = Pipeline(cluster, recovery)
            for context in contexts:
                done = []
                for _ in range(times):
                    # Another prompt each time: no prefix of it is known.
                    found, *seconds = pipeline.lose([words.randrange(1000, 40000) for _ in range(context)], stage)
                    wrong += [f"{context} tokens, {'with' if recovery else 'without'}: {one}" for one in found]
                    done.append(seconds)
                plan, token = (clients.percentile([row[i] for row in done if row[i] is not None], 50) for i in (0, 1))
                rows.append((context, recovery, plan, token))
                report(f"| {context:,} | {'the lost layers' if recovery else 'all layers'} | {times} | {plan:.3f} | "
                       f"{token:.3f} | {KEPT * recovery * context / 2**20:.1f} |")
    return rows, wrong


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--contexts", default="1024,4096", help="tokens, comma-separated")
    options.add_argument("--times", type=int, default=5)
    options.add_argument("--only", choices=("with", "without"), help="the setting; else both")
    options.add_argument("--stage", type=int, default=1, choices=(0, 1, 2))
    given = options.parse_args()
    modes = [mode for mode in (False, True) if given.only != ("without" if mode else "with")]
    print("| context, tokens | computed again | times | s to a plan that serves | s from there to the next token | "
          "MiB kept of it |\n|---|---|---|---|---|---|")
    _, wrong = run([int(c) for c in given.contexts.split(",")], given.times, lambda line: print(line, flush=True),
                   modes, given.stage)
    for one in wrong:
        print("WRONG", one)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
