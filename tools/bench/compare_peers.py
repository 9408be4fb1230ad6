"""Alternating runs of Hexgen and llama.cpp on one model: medians, spreads and ratios.

Called by tools/bench_peers.sh. Single stream: prefill of 128 and 512 tokens and 64 decoded tokens,
from build/bench_cpu and llama-bench. With --serve: both servers in turn under the same load of
`hexgen bench` (128 in, 64 out, closed loop, greedy, the same random prompts, `ignore_eos`, no
prompt cache); a run whose token counts differ from that is an error.
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

INPUT, OUTPUT = 128, 64  # tokens of every request under --serve
SLOT = 256  # KV positions for each client


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


def load(url, model, clients, requests, seed):
    out = subprocess.run(
        ["build/hexgen", "bench", "--base-url", url, "--model", model, "--num-prompts",
         str(requests), "--max-concurrency", str(clients), "--random-input-len", str(INPUT),
         "--random-output-len", str(OUTPUT), "--seed", str(seed), "--json"], check=True,
        capture_output=True, text=True).stdout
    result = json.loads(out)
    # Equal load or no figure: every request prompted and answered in full, as the server counts.
    for field, each in (("total_input_tokens", INPUT), ("total_output_tokens", OUTPUT)):
        if result[field] != each * requests:
            raise RuntimeError(f"{url}: {field} is {result[field]}, expected {each * requests}")
    return result


def start(who, args, threads, port, state, widest):
    """A server of `threads` threads without prompt caches, so that nobody skips work."""
    if who == "hexgen":
        command = ["build/hexgen", "serve", args.model, "--port", str(port), "--fabric-port", "0",
                   "--device", f"cpu:threads={threads}",
                   "--kv-tokens", str(widest * SLOT), "--no-enable-prefix-caching"]
    else:
        command = [f"{args.llama}/llama-server", "-m", args.model, "--port", str(port),
                   "-t", str(threads), "-np", str(widest), "-c", str(widest * SLOT), "--no-webui",
                   "--no-cache-prompt", "--cache-ram", "0"]
    return subprocess.Popen(command, env=dict(os.environ, XDG_STATE_HOME=state),
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            start_new_session=True)


def serving(args):
    threads = int(args.threads.split()[-1])
    clients = [int(c) for c in args.clients.split()]
    table = {}
    for round_ in range(args.rounds):
        for who in ("hexgen", "llama.cpp"):
            with tempfile.TemporaryDirectory() as state:
                port = free_port()
                process = start(who, args, threads, port, state, max(clients))
                try:
                    url = f"http://127.0.0.1:{port}"
                    wait_healthy(url, process)
                    with urllib.request.urlopen(url + "/v1/models") as r:
                        name = json.load(r)["data"][0]["id"]
                    load(url, name, max(clients), max(clients), 1)
                    for c in clients:
                        seed = 1000 * (round_ + 1) + c  # the same prompts for both, none twice
                        table.setdefault((who, c), []).append(
                            load(url, name, c, max(8, 3 * c), seed))
                        print(f"\rround {round_ + 1}: {who}, {c} clients ", end="",
                              file=sys.stderr, flush=True)
                finally:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait(timeout=30)
    print(file=sys.stderr)
    print(f"{threads} threads, {INPUT} in / {OUTPUT} out, closed loop, {args.rounds} rounds: "
          "medians of output tok/s (lowest-highest), TTFT p50 and p99 ms, TPOT p50 ms")
    for c in clients:
        rates, tails = {}, {}
        for who in ("hexgen", "llama.cpp"):
            runs = table[(who, c)]
            rates[who] = [r["output_throughput"] for r in runs]
            p50, tails[who], tpot = (statistics.median(r[k] for r in runs) for k in (
                "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms"))
            print(f"{c:3} clients  {who:10}{spread(rates[who])}  TTFT {p50:7.1f} "
                  f"{tails[who]:7.1f}  TPOT {tpot:6.1f}")
        mine, peer = (statistics.median(rates[who]) for who in ("hexgen", "llama.cpp"))
        print(f"             ratio: {mine / peer:.2f} of the rate, "
              f"{tails['hexgen'] / tails['llama.cpp']:.2f} of the TTFT p99")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--llama", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", default="1 2")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--clients", default="1 4 8 16 32")
    args = parser.parse_args()
    if args.serve:
        serving(args)
    else:
        single_stream(args)


if __name__ == "__main__":
    main()
