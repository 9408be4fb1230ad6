#!/usr/bin/env python3
"""How long recovery takes: kill (or freeze) to detection, to a working plan, to the next token; and what a
join does to the time between tokens.

    tests/chaos/recovery_times.py [--kills 30] [--freezes 5] [--rows FILE.json] [--chart FILE.svg]

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


def join_under_load(chart):
    """Time between tokens before and while a node joins and the plan switches to it."""
    device = "cpu:threads=1,memory=400MiB,speed={}"
    with harness.Cluster(agents=(device.format(0.5),)) as cluster:
        answers = clients.undisturbed(cluster)
        with clients.Load(cluster, answers, 2) as load:
            began = time.monotonic()
            time.sleep(8)
            joined = time.monotonic()
            wall = time.time()
            cluster.join("a2", device.format(1))
            harness.wait_for(lambda: any("a2" in clients.nodes_of(r) for r in clients.serving(cluster)),
                             60, cluster.tails)
            switched = wall and joined + first(events(cluster, wall), ("serving",)) - wall
            time.sleep(8)
        before = [gap for at, gap in load.gaps if at < joined]
        during = [gap for at, gap in load.gaps if joined <= at <= switched + 1]
        print(f"join under load: {load.finished} answers, {len(load.violations)} failed, {load.refused} refused; "
              f"between tokens p99 {1e3 * clients.percentile(before, 99):.1f} ms before, "
              f"{1e3 * clients.percentile(during, 99):.1f} ms from the join to 1 s after the switch "
              f"({len(before)} and {len(during)} tokens)")
        if chart:
            draw(chart, [(at - began, gap) for at, gap in load.gaps], joined - began, switched - began)
        return load.violations


def draw(path, points, joined, switched):
    """A chart of the time between tokens, in plain SVG."""
    width, height, left, top = 900, 300, 60, 20
    last, most = max(at for at, _ in points), max(gap for _, gap in points) * 1000
    def x(at):
        return left + at / last * (width - left - 20)
    def y(gap_ms):
        return top + (1 - gap_ms / most) * (height - top - 40)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
           f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>']
    for at, word in ((joined, "a node joins"), (switched, "the plan has switched")):
        out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{height - 40}" stroke="#c33"/>'
                   f'<text x="{x(at) + 4:.1f}" y="{top + (10 if at == joined else 24)}" fill="#c33">{word}</text>')
    for share in (0, 0.5, 1):
        out.append(f'<text x="4" y="{y(most * share) + 4:.1f}">{most * share:.0f} ms</text>')
    out += [f'<circle cx="{x(at):.1f}" cy="{y(gap * 1000):.1f}" r="1.5" fill="#36c"/>' for at, gap in points]
    out.append(f'<text x="{left}" y="{height - 10}">time between tokens of two clients over {last:.0f} s</text></svg>')
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")


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
    options.add_argument("--freezes", type=int, default=5)
    options.add_argument("--rows", type=pathlib.Path, help="keeps the times, so that several runs make one table")
    options.add_argument("--chart", default="")
    options.add_argument("--no-join", action="store_true")
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
    if not given.no_join:
        violations += join_under_load(given.chart)
    for one in violations:
        print("WRONG", one)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
