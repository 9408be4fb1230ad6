"""Alternating runs of Hexgen and llama.cpp on one model: medians, spreads and ratios.

Called by tools/bench_peers.sh. Single stream: prefill of 128 and 512 tokens and 64 decoded tokens,
from build/bench_cpu and llama-bench. With --serve: both servers in turn under the same load of
`hexgen bench` (128 in, 64 out, closed loop).
"""

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request


def ours(model, threads):
    out = subprocess.run(["build/bench_cpu", model, str(threads), "", "0.7"], check=True,
                         capture_output=True, text=True).stdout
    rates = {}
    for line in out.splitlines():
        if m := re.match(r"decode\s+B=1\s+([\d.]+) tok/s", line):
            rates["decode"] = float(m[1])
        if m := re.match(r"prefill (\d+)\s+([\d.]+) tok/s", line):
            rates[f"prefill {m[1]}"] = float(m[2])
    limits = out.splitlines()[0]
    return rates, limits


def theirs(llama, model, threads):
    out = subprocess.run([f"{llama}/llama-bench", "-m", model, "-t", str(threads), "-p", "128,512",
                          "-n", "64", "-r", "1", "-o", "json"], check=True, capture_output=True,
                         text=True).stdout
    rates = {}
    for row in json.loads(out):
        name = f"prefill {row['n_prompt']}" if row["n_prompt"] else "decode"
        rates[name] = row["avg_ts"]
    return rates


def spread(values):
    return f"{statistics.median(values):8.1f} ({min(values):.1f}-{max(values):.1f})"


def single_stream(args):
    print(f"{'':24}{'hexgen tok/s':>28}{'llama.cpp tok/s':>28}   ratio of medians")
    for threads in args.threads.split():
        mine, peer, limits = {}, {}, ""
        for round_ in range(args.rounds):
            got, limits = ours(args.model, threads)
            for k, v in got.items():
                mine.setdefault(k, []).append(v)
            for k, v in theirs(args.llama, args.model, threads).items():
                peer.setdefault(k, []).append(v)
            print(f"\r{threads} thread(s): round {round_ + 1} of {args.rounds}", end="",
                  file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for name in ("decode", "prefill 128", "prefill 512"):
            ratio = statistics.median(mine[name]) / statistics.median(peer[name])
            print(f"{threads} thread(s) {name:12}{spread(mine[name]):>28}{spread(peer[name]):>28}"
                  f"   {ratio:.2f}")
        print(f"  limits in the same run: {limits}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_healthy(url, process):
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url + "/health", timeout=1) as r:
                if r.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not become healthy")


def load(url, model, clients, requests):
    out = subprocess.run(
        ["build/hexgen", "bench", "--base-url", url, "--model", model, "--num-prompts",
         str(requests), "--max-concurrency", str(clients), "--random-input-len", "128",
         "--random-output-len", "64", "--json"], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def serving(args):
    threads = int(args.threads.split()[-1])
    clients = [1, 4, 8, 16, 32]
    table = {}
    for round_ in range(max(1, args.rounds // 5)):
        for who in ("hexgen", "llama.cpp"):
            with tempfile.TemporaryDirectory() as state:
                port, fabric = free_port(), free_port()
                env = dict(os.environ, XDG_STATE_HOME=state)
                if who == "hexgen":
                    command = ["build/hexgen", "serve", args.model, "--port", str(port),
                               "--fabric-port", str(fabric), "--device", f"cpu:threads={threads}"]
                else:
                    command = [f"{args.llama}/llama-server", "-m", args.model, "--port", str(port),
                               "-t", str(threads), "-np", "32", "-c", str(32 * 256), "--no-webui"]
                process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL, start_new_session=True)
                try:
                    url = f"http://127.0.0.1:{port}"
                    wait_healthy(url, process)
                    with urllib.request.urlopen(url + "/v1/models") as r:
                        name = json.load(r)["data"][0]["id"]
                    load(url, name, 1, 2)
                    for c in clients:
                        table.setdefault((who, c), []).append(load(url, name, c, max(8, 3 * c)))
                        print(f"\rround {round_ + 1}: {who}, {c} clients ", end="",
                              file=sys.stderr, flush=True)
                finally:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait(timeout=30)
    print(file=sys.stderr)
    print("128 in / 64 out, closed loop: output tok/s, TTFT p99 ms")
    for c in clients:
        row = {}
        for who in ("hexgen", "llama.cpp"):
            runs = table[(who, c)]
            row[who] = (statistics.median(r["output_throughput"] for r in runs),
                        statistics.median(r["p99_ttft_ms"] for r in runs))
        mine, peer = row["hexgen"], row["llama.cpp"]
        print(f"{c:3} clients  hexgen {mine[0]:8.1f} {mine[1]:9.1f}   llama.cpp {peer[0]:8.1f} "
              f"{peer[1]:9.1f}   ratio {mine[0] / peer[0]:.2f}, TTFT {mine[1] / peer[1]:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--llama", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", default="1 2")
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    if args.serve:
        serving(args)
    else:
        single_stream(args)


if __name__ == "__main__":
    main()
