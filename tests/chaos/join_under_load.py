#!/usr/bin/env python3
"""What a join does to those who are being answered: the time between tokens before a node joins, and from its
start until a second after the new plan serves. No request may fail.

    tests/chaos/join_under_load.py [--rounds 5] [--seconds 8] [--clients 2] [--chart FILE.svg]

One agent at half speed serves; one at full speed joins. Every answer is compared with the undisturbed one. Exit
code 1 when one differs, or when the 99th percentile during the switch is more than twice that of before."""

import argparse
import sys
import time

import clients
import harness

DEVICE = "cpu:threads=1,memory=400MiB,speed={}"
GOAL = 2


class Round:
    """Gaps between tokens as (seconds since the round's start, seconds), and when it joined and had switched."""

    def __init__(self, seconds, at_once):
        with harness.Cluster(agents=(DEVICE.format(0.5),)) as cluster:
            answers = clients.undisturbed(cluster)
            with clients.Load(cluster, answers, at_once) as load:
                began = time.monotonic()
                time.sleep(seconds)
                joined, wall = time.monotonic(), time.time()
                cluster.join("a2", DEVICE.format(1))
                harness.wait_for(lambda: any("a2" in clients.nodes_of(r) for r in clients.serving(cluster)),
                                 harness.START_S, cluster.tails)
                served = clients.first(clients.events(cluster, wall), "serving")
                time.sleep(seconds)
        self.joined, self.switched = joined - began, joined - began + served - wall
        self.gaps = [(at - began, gap) for at, gap in load.gaps if at >= began]
        self.answers, self.refused, self.violations = load.finished, load.refused, load.violations

    def before(self):
        return [gap for at, gap in self.gaps if at < self.joined]

    def during(self):
        return [gap for at, gap in self.gaps if self.joined <= at <= self.switched + 1]


def draw(path, one):
    """A chart of the time between tokens, in plain SVG."""
    width, height, left, top = 900, 300, 60, 20
    last, most = max(at for at, _ in one.gaps), max(gap for _, gap in one.gaps)

    def x(at):
        return left + at / last * (width - left - 20)

    def y(gap):
        return top + (1 - gap / most) * (height - top - 40)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
           f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>']
    for at, word, line in ((one.joined, "a node joins", 10), (one.switched, "the new plan serves", 24)):
        out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{height - 40}" stroke="#c33"/>'
                   f'<text x="{x(at) + 4:.1f}" y="{top + line}" fill="#c33">{word}</text>')
    for share in (0, 0.5, 1):
        out.append(f'<text x="4" y="{y(most * share) + 4:.1f}">{1e3 * most * share:.0f} ms</text>')
    dots = "".join(f"M{x(at):.1f} {y(gap):.1f}h0" for at, gap in one.gaps)
    out.append(f'<path d="{dots}" stroke="#36c" stroke-width="3" stroke-linecap="round"/>')
    out.append(f'<text x="{left}" y="{height - 10}">time between tokens, over {last:.0f} s</text></svg>')
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")


def run(rounds, seconds, at_once=2, report=print):
    """All rounds, and the p99 of before and during over all of them, in seconds."""
    done = []
    for _ in range(rounds):
        one = Round(seconds, at_once)
        done.append(one)
        report(f"{one.answers} answers, {len(one.violations)} failed, {one.refused} refused; the new plan served "
               f"{one.switched - one.joined:.2f} s after the join began; between tokens p99 "
               f"{1e3 * clients.percentile(one.before(), 99):.1f} ms before, "
               f"{1e3 * clients.percentile(one.during(), 99):.1f} ms during")
    return done, *(clients.percentile([gap for one in done for gap in part(one)], 99)
                   for part in (Round.before, Round.during))


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=8, help="of load before the join, and after the switch")
    options.add_argument("--clients", type=int, default=2)
    options.add_argument("--chart", default="", help="of the last round")
    given = options.parse_args()
    done, before, during = run(given.rounds, given.seconds, given.clients, lambda line: print(line, flush=True))
    failed = [wrong for one in done for wrong in one.violations]
    print(f"all: {sum(one.answers for one in done)} answers, {len(failed)} failed; between tokens p99 "
          f"{1e3 * before:.1f} ms before ({sum(len(one.before()) for one in done)}), {1e3 * during:.1f} ms during "
          f"({sum(len(one.during()) for one in done)}): {during / before:.2f} times (at most {GOAL})")
    if given.chart:
        draw(given.chart, done[-1])
    for one in failed:
        print("WRONG", one)
    return 1 if failed or during > GOAL * before else 0


if __name__ == "__main__":
    sys.exit(main())
