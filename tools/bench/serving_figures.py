#!/usr/bin/env python3
"""Figures of one serving engine, from real processes.

usage: serving_figures.py prefix|cancel|three|speculate|host|predict [--rounds N] [--clients N]

prefix  time to the first token of a prompt of 1,000 shared tokens and 24 of its own, when the
        shared ones are new and when another request brought them; the answers must equal those of a
        server without prefix cache.
cancel  how long a client that hangs up stays on three unlike agents under load: all places are
        taken, one more request waits, a client goes; its blocks are free when that one's first
        step is formed, which the server's own queue time tells.
speculate  tokens a second of one client with and without --speculate ngram:8, for a text that goes
        round in circles and for one that does not; answers must be equal.
three   three unlike agents of one thread (speeds 0.6, 0.4, 0.25) under load, against the bound that
        their own rates under that load allow: if every device worked all the time.
predict what the simulator says of three unlike agents, with what the stages take for a step (measured
        before), beside what `hexgen bench` measures at three rates.
host    what a token costs the host beside the device: processor time of each process while a model
        of next to no size (one layer of 64) answers --clients (256 is the widest step) at once.
"""

import argparse
import json
import os
import pathlib
import random
import socket
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


def queue_seconds(cluster):
    return cluster.metric("vllm:request_queue_time_seconds_sum")


def cancel(args):
    others, length = args.clients - 1, 64
    devices = tuple(f"cpu:threads=1,memory=256MiB,speed={s}" for s in args.speeds.split(","))
    base = {"temperature": 0, "ignore_eos": True}
    with harness.Cluster(agents=devices, serve=("--max-replicas", "1", "--max-num-seqs", str(args.clients),
                                                "--expected-concurrency", str(args.clients),
                                                "--kv-cache-dtype", "f16")) as cluster:
        stages = len(replica(cluster)["stages"])
        free = harness.wait_for(lambda: replica(cluster).get("load"), 10, "a report")["free_blocks"]
        load = [cluster.stream("/v1/completions", {**base, "prompt": ids(i, 16), "max_tokens": 4000})
                for i in range(others)]
        for stream in load:
            payloads = stream.payloads()
            next(payloads)
            threading.Thread(target=lambda p=payloads: any(False for _ in p), daemon=True).start()
        times = {}
        for i in range(args.rounds):
            for streamed in (True, False):
                victim = cluster.open("POST", "/v1/completions", {
                    **base, "prompt": ids(100 + i, length), "max_tokens": 2000, "stream": streamed})
                if streamed:
                    victim.getresponse().readline()
                else:
                    harness.wait_for(lambda: cluster.metric("hexgen:router_sequences") == args.clients, 10, "all run")
                    time.sleep(1.5)  # past its prompt: it decodes now
                queued, sent = queue_seconds(cluster), time.monotonic()
                body = {**base, "prompt": ids(200 + i, length), "max_tokens": 1}
                next_one = threading.Thread(target=cluster.post, args=("/v1/completions", body))
                next_one.start()
                harness.wait_for(lambda: cluster.metric("hexgen:router_sequences") == args.clients + 1, 10, "one waits")
                time.sleep(random.Random(i).uniform(0, 0.2))  # anywhere in a step
                gone = time.monotonic()
                victim.sock.shutdown(socket.SHUT_RDWR)
                victim.close()
                next_one.join()
                taken = sent + queue_seconds(cluster) - queued
                times.setdefault(streamed, []).append(1e3 * (taken - gone))
        steps = replica(cluster)["load"]["stage_us"]
        for stream in load:
            stream.connection.sock.shutdown(socket.SHUT_RDWR)
        harness.wait_for(lambda: replica(cluster)["load"]["running"] == 0, 10, "all gone")
        left = harness.wait_for(lambda: replica(cluster)["load"]["free_blocks"], 10, "a report")
    print(f"{stages} stages, {others} other clients decode, a step takes {sum(steps) / 1e3:.0f} ms through all stages")
    for streamed, ms in times.items():
        ms.sort()
        print(f"client gone, {'stream' if streamed else 'no stream'}: its place is taken after p50 "
              f"{statistics.median(ms):.1f} ms, p99 {ms[min(len(ms) - 1, int(0.99 * len(ms)))]:.1f}, worst "
              f"{ms[-1]:.1f} of {len(ms)}")
    print(f"free blocks before {free}, after {left}")
    return 0 if free == left and max(max(ms) for ms in times.values()) <= 200 else 1


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


def run_bench(cluster, requests, *flags):
    return json.loads(subprocess.run(
        [harness.binary(), "bench", "--base-url", f"http://{cluster.host}:{cluster.port}", "--num-prompts",
         str(requests), "--json", *flags], check=True, capture_output=True, text=True).stdout)


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
        def bench(requests, seed):
            return run_bench(cluster, requests, "--max-concurrency", str(args.clients), "--seed", str(seed))

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


def step_costs(cluster):
    """What a step takes each stage: fixed, a token, a row (a token chosen), by least squares over loads
    whose steps have 1, some and 16 tokens; and what a step takes beside its stages."""

    def counts():
        return [cluster.metric("vllm:iteration_tokens_total_" + what) for what in ("count", "sum")] + [
            cluster.metric("vllm:generation_tokens_total")]

    def load(clients, body, seconds):
        end = time.monotonic() + seconds

        def client(i):
            while time.monotonic() < end:
                cluster.post("/v1/completions", {**body, "prompt": ids(i, body["prompt"]), "temperature": 0,
                                                 "ignore_eos": True})

        threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
        for t in threads:
            t.start()
        time.sleep(1.5)  # prompts are through, reports of other loads are forgotten
        sampler, before = Sampler(cluster), counts()
        sampler.start()
        time.sleep(max(0.0, end - time.monotonic()))
        sampler.stop.set()
        sampler.join()
        steps, tokens, rows = (b - a for a, b in zip(before, counts()))
        for t in threads:
            t.join()
        return [statistics.mean(us) for us in zip(*(us for _, us in sampler.seen))], tokens / steps, rows / steps

    loads = [load(*one) for one in ((1, {"prompt": 8, "max_tokens": 400}, 6), (12, {"prompt": 8, "max_tokens": 120}, 8),
                                    (24, {"prompt": 8, "max_tokens": 80}, 8), (4, {"prompt": 256, "max_tokens": 1}, 8))]
    stages, last = [], len(loads[0][0]) - 1
    for j in range(last + 1):
        rows = [([1 / us[j], n / us[j]] + ([r / us[j]] if j == last else []), 1.0) for us, n, r in loads]
        fit = least_squares(rows)
        stages.append({"fixed_us": fit[0], "token_us": fit[1], "row_us": fit[2] if j == last else 0})
        print(f"stage {j}: {fit[0]:.0f} us a step, {fit[1]:.0f} a token" + (f", {fit[2]:.0f} a row" if j == last else "")
              + "; measured " + ", ".join(f"{us[j]:.0f} of {n:.1f} tokens" for us, n, _ in loads))
    alone = run_bench(cluster, 1, "--max-concurrency", "1", "--random-input-len", "8", "--random-output-len", "200")
    return stages, max(0.0, 1e3 * alone["mean_tpot_ms"] - sum(sum(s.values()) for s in stages))


def least_squares(rows):
    """x of the least sum of (a x - b)^2, by the normal equations."""
    n = len(rows[0][0])
    m = [[sum(a[i] * a[j] for a, _ in rows) for j in range(n)] + [sum(a[i] * b for a, b in rows)] for i in range(n)]
    for i in range(n):
        m[i] = [v / m[i][i] for v in m[i]]
        for k in range(n):
            if k != i:
                m[k] = [v - m[k][i] * w for v, w in zip(m[k], m[i])]
    return [row[n] for row in m]


def predict(args):
    devices = tuple(f"cpu:threads=1,memory=128MiB,speed={s}" for s in args.speeds.split(","))
    serve = ["--no-enable-prefix-caching", "--max-replicas", "1", "--expected-concurrency", "12"]
    model = pathlib.Path(harness.binary()).parent / "bench_model"
    errors = []
    with harness.Cluster(agents=devices, serve=serve) as cluster:
        stages, overhead = step_costs(cluster)
        plan = replica(cluster)
        print(f"layers {[s['layers'] for s in plan['stages']]}, {overhead:.0f} us a step beside the stages\n")
        print("| requests/s | | measured | predicted | error |\n|---|---|---|---|---|")
        for rate in args.rates:
            requests = round(rate * args.rounds * 5)
            measured = run_bench(cluster, requests, "--request-rate", str(rate), "--seed", "3")
            asked = {"stages": stages, "overhead_us": overhead, "blocks": plan["kv_blocks"], "rate": rate,
                     "requests": requests, "prompt_tokens": 128, "output_tokens": 64, "seed": 3}
            predicted = json.loads(subprocess.run([model, "predict"], input=json.dumps(asked), check=True,
                                                  capture_output=True, text=True).stdout)
            for key, name in (("mean_ttft_ms", "first token, ms"), ("mean_tpot_ms", "each further token, ms"),
                              ("output_throughput", "output tok/s")):
                error = predicted[key] / measured[key] - 1
                errors.append(abs(error))
                print(f"| {rate} | {name} | {measured[key]:.1f} | {predicted[key]:.1f} | {100 * error:+.0f} % |")
    print(f"\nmean error {100 * statistics.mean(errors):.1f} %, largest {100 * max(errors):.1f} %")
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
    what = {f.__name__: f for f in (prefix, cancel, three, speculate, host, predict)}
    parser.add_argument("what", choices=what)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--layers", help="three: of each stage, by hand")
    parser.add_argument("--speeds", default="0.6,0.4,0.25", help="three, cancel, predict: of the agents")
    parser.add_argument("--rates", type=lambda t: [float(r) for r in t.split(",")], default=[0.7, 1.4, 2.0],
                        help="predict: requests a second")
    args = parser.parse_args()
    args.clients = args.clients or {"three": 12, "cancel": 8, "host": 256}.get(args.what)
    return what[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
