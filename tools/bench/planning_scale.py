#!/usr/bin/env python3
"""How planning grows with the pool: 64 to 1,024 GPUs, 2 to 32 regions.

usage: planning_scale.py PROGRAM [--out FOLDER] [--time-limit S]

PROGRAM is hexgen (or any program with its `plan` verb). Prints one line a size with seconds,
peak memory and the share of the upper bound that the plan reaches; writes planning_scale.json and
planning_scale.svg.
"""
import argparse
import json
import math
import os
import pathlib
import resource
import subprocess
import tempfile
import time

KINDS = ["rtx3090ti", "a5000", "a6000", "a40", "a100-40g", "l40s", "rtx4090", "v100-32g"]


def cluster(gpus):
    """Regions of 32 GPUs on four machines of 8; kinds and links from a fixed pattern."""
    regions = max(1, gpus // 32)
    lines = [f"name: scale-{gpus}", "nodes:"]
    for r in range(regions):
        for m in range(4):
            kind = KINDS[(r * 3 + m) % len(KINDS)]
            lines.append(f"  - {{name: r{r}-m{m}, region: r{r}, devices: [{{kind: {kind}, count: 8}}]}}")
    lines += ["links:", "  intra_node: {default: {latency_us: 10, bandwidth_gbps: 128}, "
              "a100-40g: {latency_us: 5, bandwidth_gbps: 2400}}",
              "  intra_region: {latency_ms: 1, bandwidth_gbps: 5}", "  inter_region:"]
    for a in range(regions):
        for b in range(a + 1, regions):
            lines.append(f"    - {{between: [r{a}, r{b}], latency_ms: {40 + (a * 7 + b * 13) % 110}, "
                         f"bandwidth_gbps: 0.5}}")
    if regions == 1:
        lines.pop()
    return "\n".join(lines) + "\n"


def measure(program, gpus, folder, limit):
    path = pathlib.Path(folder) / f"scale-{gpus}.yaml"
    path.write_text(cluster(gpus))
    command = [program, "plan", "--cluster", str(path), "--model", "llama-2-70b", "--workload",
               "arena-grid", "--mode", "paper", "--objective", "capacity", "--rate", str(gpus / 20),
               "--slo-scale", "8", "--time-limit", str(limit), "--json"]
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status != 0:
        raise SystemExit(f"{gpus} GPUs: {' '.join(command)} failed")
    plan = json.loads(out)
    return {"gpus": gpus, "seconds": seconds, "mib": usage.ru_maxrss / 1024,
            "of_bound": plan["throughput_rps"] / plan["upper_bound_rps"],
            "replicas": len(plan["replicas"]), "steps": plan["search"]["generations"]}


def svg(rows):
    width, height, left, bottom = 640, 380, 70, 50
    xs = [math.log2(r["gpus"]) for r in rows]
    top = max(r["seconds"] for r in rows) * 1.1
    x = lambda v: left + (v - xs[0]) / (xs[-1] - xs[0]) * (width - left - 20)
    y = lambda v: height - bottom - v / top * (height - bottom - 40)
    points = " ".join(f"{x(a):.1f},{y(r['seconds']):.1f}" for a, r in zip(xs, rows))
    text = "".join(f'<text x="{x(a):.1f}" y="{height - 28}" text-anchor="middle" font-size="11">'
                   f'{r["gpus"]}</text><text x="{x(a):.1f}" y="{y(r["seconds"]) - 8:.1f}" '
                   f'text-anchor="middle" font-size="11">{r["seconds"]:.1f} s, '
                   f'{100 * r["of_bound"]:.0f} %</text>' for a, r in zip(xs, rows))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
            f'<text x="{width / 2}" y="22" text-anchor="middle" font-size="14">Planning time and '
            f'share of the upper bound</text><polyline fill="none" stroke="#36c" stroke-width="2" '
            f'points="{points}"/>{text}<text x="{width / 2}" y="{height - 8}" '
            f'text-anchor="middle" font-size="12">GPUs</text></svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--out", default=".")
    parser.add_argument("--time-limit", type=float, default=50)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for gpus in flags.sizes:
            rows.append(measure(flags.program, gpus, folder, flags.time_limit))
            print("{gpus:5d} GPUs  {seconds:7.2f} s  {mib:7.1f} MiB  {of_bound:6.1%} of the bound  "
                  "{replicas} replicas  {steps} steps".format(**rows[-1]), flush=True)
    out = pathlib.Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "planning_scale.json").write_text(json.dumps(rows, indent=1))
    if len(rows) > 1:
        (out / "planning_scale.svg").write_text(svg(rows))


if __name__ == "__main__":
    main()
