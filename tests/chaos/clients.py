"""Clients whose streams are recorded, and what the chaos tests ask of a cluster."""

import datetime
import json
import os
import pathlib
import re
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402  (found by the line above)
import history  # noqa: E402

LONG = os.environ.get("HEXGEN_LONG") == "1"  # tools/test.sh --long
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
WIDE = {"prompt": "Once upon a time", "max_tokens": 32, "ignore_eos": True, "return_token_ids": True}
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["name", "tags", "age"], "properties": {
    "name": {"type": "string", "maxLength": 24}, "age": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 16}, "minItems": 2, "maxItems": 3}}}
MODES = {
    "greedy": {**WIDE, "temperature": 0},
    "seeded": {**WIDE, "temperature": 0.9, "top_p": 0.95, "seed": 7},
    "penalties": {**WIDE, "temperature": 0.7, "seed": 3, "frequency_penalty": 0.6, "presence_penalty": 0.4,
                  "repetition_penalty": 1.1},
    "schema": {"prompt": "A person as JSON:", "max_tokens": 64, "temperature": 0.6, "seed": 5,
               "return_token_ids": True,
               "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}},
}


def ask(cluster, body, on_token=None, name="", timeout=harness.START_S):
    """One streamed answer. `on_token(n)` runs when n tokens have come, n from 0 (the request is sent)."""
    transcript = history.Transcript(name)
    try:
        connection = cluster.open("POST", COMPLETIONS, {**body, "stream": True}, timeout=timeout)
        if on_token:
            on_token(0)
        response = connection.getresponse()
        transcript.status = response.status
        stream = harness.Stream(connection, response)
        if response.status == 200:
            count = 0
            for payload in stream.payloads():
                transcript.add(payload)
                for _ in history.tokens_of(payload):
                    count += 1
                    if on_token:
                        on_token(count)
        else:
            transcript.ended = response.read().decode(errors="replace")
        stream.close()
    except OSError as error:
        transcript.ended = f"{type(error).__name__}: {error}"
        transcript.status = transcript.status or 0
    except Exception as error:  # http.client's own, such as IncompleteRead
        transcript.ended = f"{type(error).__name__}: {error}"
    return transcript


def undisturbed(cluster, bodies=None):
    """{mode: answer} of a cluster to which nothing happens; each is asked twice and must agree."""
    answers = {}
    for mode, body in (bodies or MODES).items():
        first, second = (history.answer_of(ask(cluster, body)) for _ in range(2))
        assert first == second and first.tokens, (mode, first, second)
        answers[mode] = first
    return answers


class Load:
    """Clients that ask again and again until stop(), over all modes. Every answer is checked. A 503 is
    not an answer that failed: nothing was accepted; it is counted, and asked again as Retry-After says."""

    def __init__(self, cluster, answers, clients=2, bodies=None):
        self.cluster, self.answers, self.bodies = cluster, answers, bodies or MODES
        self.violations, self.finished, self.refused, self.gaps = [], 0, 0, []
        self.guard, self.over = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def run(self, number):
        modes = list(self.answers)
        while not self.over.is_set():
            mode = modes[number % len(modes)]
            number += 1
            transcript = ask(self.cluster, self.bodies[mode], name=mode)
            if transcript.status == 503:
                self.refused += 1
                number -= 1
                self.over.wait(0.2)
                continue
            wrong = history.check(transcript, self.answers[mode])
            times = transcript.times()
            with self.guard:
                self.finished += 1
                self.gaps += [(b, b - a) for a, b in zip(times, times[1:])]
                self.violations += [f"{mode} (answer {self.finished}): {one}" for one in wrong]
            if wrong:
                self.over.wait(0.2)  # an endpoint that is gone must not become a busy loop

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(harness.START_S)
            if thread.is_alive():
                self.violations.append("a client's stream did not end")


def serving(cluster):
    """The replicas that serve, as lists of stages; [] while something else is being prepared."""
    replicas = cluster.cluster()["plan"]["replicas"]
    return [r["stages"] for r in replicas] if all(r["state"] == "serving" for r in replicas) else []


def nodes_of(replica):
    return [device.split("/")[0] for stage in replica for device in stage["devices"]]


def full(cluster, nodes, stages=None, seconds=60):
    """Waits until every node of `nodes` is ready and nothing is being prepared; returns the replicas."""
    def look():
        view = cluster.cluster()
        ready = {n["name"] for n in view["nodes"] if n["state"] == "ready"}
        replicas = view["plan"]["replicas"]
        good = ready >= set(nodes) and view["ready"] and replicas
        good = good and all(r["state"] == "serving" for r in replicas)
        good = good and (stages is None or any(len(r["stages"]) == stages for r in replicas))
        return [r["stages"] for r in replicas] if good else None
    return harness.wait_for(look, seconds, lambda: json.dumps(
        {k: cluster.cluster()[k] for k in ("nodes", "plan")})[:3000] + cluster.tails())


def restart(cluster, name, device, *flags):
    """Starts the agent `name` again after its death; the old process is forgotten."""
    old = cluster.agent(name)
    old.end()
    cluster.processes.remove(old)
    return cluster.join(name, device, *flags)


def events(cluster, after):
    """(time, event) of the coordinator's log since the wall-clock time `after`."""
    out = []
    for line in cluster.serve.text().splitlines():
        found = re.match(r"time=(\S+)Z process=coordinator event=(\S+)", line)
        at = found and datetime.datetime.fromisoformat(found[1] + "+00:00").timestamp()
        if found and at >= after - 0.001:
            out.append((at, found[2]))
    return out


def first(found, *names):
    """When the first of these events came; None: not yet."""
    return next((at for at, name in found if name in names), None)


def recovery(cluster, transcript, wall, monotonic):
    """Seconds from a fault, at the time `wall` of the log's clock and `monotonic` of the transcript's, to its
    detection, to a working plan and to the next token; None for what did not come."""
    found = events(cluster, wall)
    detected, serving = first(found, "node_suspect", "node_gone", "generation_failed"), first(found, "serving")
    pauses = [at - monotonic for at in transcript.times()]
    # Tokens that were on their way when it died do not count: the next token after the new plan serves.
    resumed = next((s for s in pauses if serving is not None and s > serving - wall), None)
    return *(None if at is None else at - wall for at in (detected, serving)), resumed


TABLE_HEAD = "| fault | seconds to | times | median | p99 |\n|---|---|---|---|---|"


def table(name, rows):
    """The rows that recovery() gave, as lines of a Markdown table under TABLE_HEAD."""
    lines = []
    for column, what in enumerate(("detection", "working plan", "first resumed token")):
        values = [row[column] for row in rows if row[column] is not None]
        if values:
            lines.append(f"| {name} | {what} | {len(values)} | {percentile(values, 50):.3f} | "
                         f"{percentile(values, 99):.3f} |")
    return "\n".join(lines)


def percentile(values, share):
    """The smallest value that at least `share` of the values do not pass; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 100) - 1))] if ordered else None
