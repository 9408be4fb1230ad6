#!/usr/bin/env python3
"""How near five seconds of search come to a long one, on the paper's 58 GPUs at full price.

usage: planning_quality.py PROGRAM [--long SECONDS] [--short SECONDS] [--seeds N]

PROGRAM is hexgen (or any program with its `plan` and `simulate` verbs). Every plan is judged by
its largest rate at 99 % and SLO scale 5 on one stream of 200,000 requests that no search has seen.
Then four GPUs leave: the repaired and the refined plan beside a full search of what is left.
`--long 0` leaves the long search out, so that all takes half a minute.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

COMMON = ["--model", "llama-2-70b", "--workload", "arena-grid", "--mode", "paper", "--rate", "3",
          "--slo-scale", "5"]


def verb(program, *arguments):
    start = time.monotonic()
    done = subprocess.run([program, *arguments, *COMMON, "--json"], stdout=subprocess.PIPE,
                          check=True)
    return json.loads(done.stdout), time.monotonic() - start


def plan(program, cluster, seed, seconds, *more):
    return verb(program, "plan", "--cluster", cluster, "--objective", "rate", "--seed", str(seed),
                "--time-limit", str(seconds), *more)


def rate(program, cluster, found, folder):
    path = pathlib.Path(folder) / "plan.json"
    path.write_text(json.dumps(found))
    return verb(program, "simulate", "--cluster", cluster, "--plan", str(path), "--requests",
                "200000", "--seed", "999")[0]["rate_99"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--long", type=float, default=600)
    parser.add_argument("--short", type=float, default=4.5)
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    full = "paper-full-price"
    with tempfile.TemporaryDirectory() as folder:
        endless = ["--iterations", "100000000"]
        best = 0
        for seed in range(flags.seeds if flags.long > 0 else 0):
            found, seconds = plan(flags.program, full, 100 + seed, flags.long, *endless)
            reached = rate(flags.program, full, found, folder)
            best = max(best, reached)
            print(f"long search, seed {100 + seed}: {reached:.3f} requests/s in {seconds:.1f} s",
                  flush=True)
        for seed in range(1, flags.seeds + 1):
            found, seconds = plan(flags.program, full, seed, flags.short)
            reached = rate(flags.program, full, found, folder)
            beside = f", {reached / best:.4f} of the best long one" if best > 0 else ""
            print(f"short search, seed {seed}: {reached:.3f} requests/s in {seconds:.1f} s{beside}",
                  flush=True)
        # Half of the first node goes.
        running = pathlib.Path(folder) / "running.json"
        running.write_text(json.dumps(found))
        config = pathlib.Path(__file__).resolve().parents[2] / "config/clusters" / f"{full}.yaml"
        left = pathlib.Path(folder) / "left.yaml"
        left.write_text(config.read_text().replace("count: 8}", "count: 4}", 1))
        fresh, _ = plan(flags.program, str(left), 1, flags.short)
        fresh = rate(flags.program, str(left), fresh, folder)
        again, _ = plan(flags.program, str(left), 1, 1.6, "--running", str(running))
        for name, key in (("repaired", "repair_seconds"), ("refined", None)):
            seconds = again[key] if key else again["refined"]["search"]["seconds"]
            reached = rate(flags.program, str(left), again[name], folder)
            print(f"four GPUs leave, {name}: {reached:.3f} requests/s in {seconds:.3f} s, "
                  f"{reached / fresh:.4f} of a full search")


if __name__ == "__main__":
    main()
