#!/usr/bin/env python3
"""Figures of one serving engine, from real processes.

usage: serving_figures.py prefix|cancel|three|speculate|host [--rounds N] [--clients N]

prefix  time to the first token of a prompt of 1,000 shared tokens and 24 of its own, when the
        shared ones are new and when another request brought them; the answers must equal those of a
        server without prefix cache.
cancel  how long blocks stay taken when a client hangs up: a prompt that needs most of the KV pool
        waits for another one's blocks; what it waits longer than alone is the cancel's time.
speculate  tokens a second of one client with and without --speculate ngram:8, for a text that goes
        round in circles and for one that does not; answers must be equal.
three   three unlike agents of one thread (speeds 0.6, 0.4, 0.25) under load, against the bound that
        their own rates under that load allow: if every device worked all the time.
host    what a token costs the host beside the device: processor time of each process while a model
        of next to no size (one layer of 64) answers --clients (256 is the widest step) at once.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/integration"))
import harness  # noqa: E402

SHARED, OWN, OUTPUT = 1000, 24, 16
DEVICE = "cpu:threads=2"


def ids(seed, count):
    draw = random.Random(seed)
    return [draw.randint(1000, 30000) for _ in range(count)]


def first_token(cluster, prompt, tokens=OUTPUT):
    """(seconds to the first token, the answer, prompt tokens that were cached)"""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            "stream_options": {"include_usage": True}}
    begin, first, text, cached = time.monotonic(), None, "", 0
    stream = cluster.stream("/v1/completions", body)
    for payload in stream.payloads():
        if payload == "[DONE]":
            break
        chunk = json.loads(payload)
        if chunk["choices"]:
            first = first or time.monotonic() - begin
            text += chunk["choices"][0]["text"]
        if chunk.get("usage"):
            cached = chunk["usage"]["prompt_tokens_details"]["cached_tokens"]
    stream.close()
    return first, text, cached


def prefix(args):
    pairs = []
    for i in range(args.rounds):
        shared = ids(i, SHARED)
        pairs.append([shared + ids(10_000 + 2 * i + j, OWN) for j in (0, 1)])
    with harness.Cluster(agents=(DEVICE,)) as cluster:
        first_token(cluster, ids(99, 64))
        with_cache = [[first_token(cluster, p) for p in pair] for pair in pairs]
    with harness.Cluster(agents=(DEVICE,), serve=("--no-enable-prefix-caching",)) as cluster:
        first_token(cluster, ids(99, 64))
        without = [[first_token(cluster, p) for p in pair] for pair in pairs]
    equal = all(a[1] == b[1] for x, y in zip(with_cache, without) for a, b in zip(x, y))
    new = statistics.median(pair[0][0] for pair in with_cache)
    known = statistics.median(pair[1][0] for pair in with_cache)
    print(f"TTFT of {SHARED + OWN} tokens: new {new * 1e3:.1f} ms, {with_cache[0][1][2]} of them "
          f"cached {known * 1e3:.1f} ms: {known / new:.3f}x; without cache "
          f"{statistics.median(p[1][0] for p in without) * 1e3:.1f} ms; "
          f"answers {'equal' if equal else 'DIFFER'} ({args.rounds} pairs)")
    return 0 if equal else 1


def cancel(args):
    # A small pool, so that the prompt that waits is short and its own time varies little.
    with harness.Cluster(agents=("cpu:threads=2,memory=124MiB",),
                         serve=("--no-enable-prefix-caching", "--max-model-len", "512",
                                "--kv-tokens", "256")) as cluster:
        blocks = cluster.cluster()["plan"]["replicas"][0]["kv_blocks"]
        most = min(16 * blocks, 512)
        length = most * 55 // 100
        for i in range(2):  # until the steps' cost is known
            first_token(cluster, ids(1000 + i, length), 1)
        others = [first_token(cluster, ids(i, length), 1)[0] for i in range(args.rounds)]
        alone = statistics.median(others)
        times = {}
        for streamed in (True, False):
            for i in range(args.rounds):
                body = {"prompt": ids(100 + i, length), "max_tokens": most - length - 1,
                        "temperature": 0, "ignore_eos": True, "stream": streamed}
                connection = cluster.open("POST", "/v1/completions", body)
                time.sleep(alone + 0.1)  # past its prompt: it decodes now
                if streamed:
                    connection.sock.recv(1)
                connection.close()
                began = first_token(cluster, ids(200 + i, length), 1)[0]
                times.setdefault(streamed, []).append(1e3 * (began - alone))
    print(f"{blocks} blocks, prompts of {length} tokens, alone {alone * 1e3:.1f} ms "
          f"({min(others) * 1e3:.1f}-{max(others) * 1e3:.1f})")
    for streamed, all_ms in times.items():
        print(f"client gone, {'stream' if streamed else 'no stream'}: the next prompt waits "
              f"{statistics.median(all_ms):.1f} ms longer (worst {max(all_ms):.1f})")
    return 0


def speculate(args):
    texts = {"repeats": list(range(400, 407)) * 6, "does not": ids(5, 42)}
    tokens, speeds, answers = 200, {}, {}
    for _ in range(args.rounds):  # in turn, so that a slower minute slows both
        for flags in ((), ("--speculate", "ngram:8")):
            with harness.Cluster(agents=(DEVICE,), serve=flags) as cluster:
                first_token(cluster, ids(99, 64))
                for name, prompt in texts.items():
                    body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "seed": 1,
                            "temperature": 0 if name == "repeats" else 1}
                    began = time.monotonic()
                    reply = cluster.post("/v1/completions", body).json()
                    speeds.setdefault((name, bool(flags)), []).append(
                        tokens / (time.monotonic() - began))
                    answers.setdefault(name, set()).add(reply["choices"][0]["text"])
    equal = all(len(texts) == 1 for texts in answers.values())
    for name in texts:
        off, on = (statistics.median(speeds[name, with_it]) for with_it in (False, True))
        print(f"text that {name}: {off:.1f} tok/s, with drafts {on:.1f}: {on / off:.2f}x")
    print(f"answers {'equal' if equal else 'DIFFER'} ({args.rounds} rounds)")
    return 0 if equal else 1


class Sampler(threading.Thread):
    """The stages' time a step, as /cluster shows it, while a load runs."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.stop, self.seen = cluster, threading.Event(), []

    def run(self):
        while not self.stop.wait(0.5):
            load = self.cluster.cluster()["plan"]["replicas"][0].get("load")
            if load and load["running"] and load["stage_us"]:
                self.seen.append((load["steps"], load["stage_us"]))


def replica(cluster):
    return cluster.cluster()["plan"]["replicas"][0]


HEAD_LAYERS = 49152 * 576 / (576 * (576 + 192) * 2 + 3 * 576 * 1536)  # a token's head costs as many layers


def three(args):
    devices = tuple(f"cpu:threads=1,memory=128MiB,speed={s}" for s in args.speeds.split(","))
    serve = ["--no-enable-prefix-caching", "--max-replicas", "1", "--expected-concurrency", str(args.clients)]
    if args.layers:
        serve += ["--stages", "1,1,1", "--layers", args.layers]
    with harness.Cluster(agents=devices, serve=serve) as cluster:
        url = f"http://{cluster.host}:{cluster.port}"

        def bench(requests, seed):
            return json.loads(subprocess.run(
                [harness.binary(), "bench", "--base-url", url, "--num-prompts", str(requests),
                 "--max-concurrency", str(args.clients), "--seed", str(seed), "--json"], check=True,
                capture_output=True, text=True).stdout)

        bench(args.clients, 1)
        time.sleep(1.2)  # the agents' report of it
        before = replica(cluster)
        sampler = Sampler(cluster)
        sampler.start()
        result = bench(args.rounds * args.clients, 2)
        sampler.stop.set()
        sampler.join()
        time.sleep(1.2)
        after = replica(cluster)
    layers = [s["layers"] for s in after["stages"]]
    steps = after["load"]["steps"] - before["load"]["steps"]
    # Steps of one report to the next cost what the later report says of a step.
    weights, sums, last = 0, [0.0] * len(layers), before["load"]["steps"]
    for at, us in sampler.seen:
        weights += at - last
        sums = [s + (at - last) * u for s, u in zip(sums, us)]
        last = at
    busy = [s / weights * steps / 1e6 for s in sums]
    rate, output = result["output_throughput"], result["total_output_tokens"]
    # Work in layers of a token. What each stage did in the time that it was busy is its rate while
    # all of them ran; were all busy all the time, with layers divisible, the time would be best_s.
    work = [n * (result["total_input_tokens"] + output) for n in layers]
    work[-1] += HEAD_LAYERS * output
    best_s = sum(work) / sum(w / b for w, b in zip(work, busy))
    bound = output / best_s
    print(f"{len(layers)} stages of {layers} layers, {args.clients} clients, {steps} steps in "
          f"{result['duration']:.1f} s; busy " +
          ", ".join(f"{100 * b / result['duration']:.0f} %" for b in busy))
    print(f"bound {bound:.1f} output tok/s, achieved {rate:.1f}: {rate / bound:.2f} of it; TTFT p50 "
          f"{result['median_ttft_ms']:.0f} ms, TPOT p50 {result['median_tpot_ms']:.0f} ms")
    return 0


def thread_seconds(pid):
    """Processor time of each of the process's threads, by name and number."""
    out = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name, rest = task.joinpath("stat").read_text().split("(", 1)[1].rsplit(")", 1)
        user, system = rest.split()[11:13]
        out[f"{name} {task.name}"] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return out


def host(args):
    output = 256
    with tempfile.TemporaryDirectory() as folder:
        shape = pathlib.Path(folder) / "tiny.yaml"
        shape.write_text("{name: tiny, architecture: llama, layers: 1, hidden: 64, heads: 1, kv_heads: 1, "
                         "ffn: 256, vocab: 2048, bytes_per_parameter: 2}\n")
        os.environ["HEXGEN_MODEL"] = str(shape)
        with harness.Cluster(agents=("cpu:threads=1",),
                             serve=("--random-weights", "--chat-template", "llama2", "--max-num-seqs",
                                    str(args.clients), "--max-num-batched-tokens", "4096",
                                    "--kv-tokens", str(args.clients * (output + 32)))) as cluster:
            def bench(seed):
                code, text, errors = cluster.command(
                    "bench", "--url", f"http://{cluster.host}:{cluster.port}", "--json", "--seed", str(seed),
                    "--num-prompts", str(args.clients), "--max-concurrency", str(args.clients),
                    "--random-input-len", "16", "--random-output-len", str(output), "--token-ids", "10:2000",
                    timeout=300)
                if code != 0:
                    raise RuntimeError(errors)
                return json.loads(text)

            bench(1)
            pids = {p.name: p.child.pid for p in cluster.processes}
            before = {name: thread_seconds(pid) for name, pid in pids.items()}
            tokens = sum(bench(seed)["total_output_tokens"] for seed in range(2, 2 + args.rounds))
            after = {name: thread_seconds(pid) for name, pid in pids.items()}
    for name in pids:
        spent = {t: s - before[name].get(t, 0) for t, s in after[name].items()}
        rank = sum(s for t, s in spent.items() if t.startswith("hexgen-rank"))
        rest = sum(spent.values()) - rank
        print(f"{name}: {rest / tokens * 1e6:.2f} us a token, {rest / tokens * args.clients * 1e6:.0f} us a step of "
              f"{args.clients}" + (f"; the rank's thread, which computes, {rank / tokens * 1e6:.2f} us" if rank else ""))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {f.__name__: f for f in (prefix, cancel, three, speculate, host)}
    parser.add_argument("what", choices=what)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--layers", help="three: of each stage, by hand")
    parser.add_argument("--speeds", default="0.6,0.4,0.25", help="three: of the agents")
    args = parser.parse_args()
    args.clients = args.clients or {"three": 12, "host": 256}.get(args.what)
    return what[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
