"""Starts real hexgen processes for a test, waits for them, and ends every one of them."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = {c["id"]: c for c in json.loads((SOURCE / "tests/golden/smollm2.json").read_text())["cases"]}
# Three agents of which none is like another, nor holds the model (92 MB) with its KV alone.
UNLIKE_AGENTS = ("cpu:threads=1,memory=80MiB,speed=1", "cpu:threads=1,memory=80MiB,speed=0.7",
                 "cpu:threads=1,memory=80MiB,speed=0.5")
START_S = 120  # a busy machine loads slowly; nothing waits longer than it must


def binary():
    path = pathlib.Path(os.environ.get("HEXGEN_BUILD", SOURCE / "build")) / "hexgen"
    if not path.exists():
        raise RuntimeError(f"{path} is missing: build it first (cmake --build --preset release)")
    return str(path)


def model():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    path = pathlib.Path(os.environ.get("HEXGEN_MODEL", cache / "hexgen/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    if not path.exists():
        raise RuntimeError(f"{path} is missing: tools/fetch_model.sh gets it")
    return str(path)


def wait_for(holds, seconds, what):
    """Returns the first true value of holds(); raises with `what` when time is over."""
    end = time.monotonic() + seconds
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)


class Process:
    """A child in a session of its own, with its output in a file."""

    def __init__(self, folder, name, arguments, environment, prefix=()):
        self.name = name
        self.log = pathlib.Path(folder) / f"{name}.log"
        with open(self.log, "wb") as out:
            self.child = subprocess.Popen([*prefix, binary(), *arguments], stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=subprocess.STDOUT, env=environment, start_new_session=True)

    def text(self):
        return self.log.read_text(errors="replace")

    def tail(self):
        return f"--- {self.name} (exit {self.child.poll()})\n" + "\n".join(self.text().splitlines()[-15:])

    def alive(self):
        return self.child.poll() is None

    def signal(self, number):
        """To the process and to the children that it supervises."""
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass

    def end(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.child.wait()


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Stream:
    """A streamed answer, read payload by payload."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        self.status = response.status

    def payloads(self):
        data = []
        for raw in self.response:
            line = raw.decode().rstrip("\r\n")
            if line.startswith("data:"):
                data.append(line[5:].lstrip(" "))
            elif not line and data:
                yield "\n".join(data)
                data = []

    def close(self):
        self.response.close()
        self.connection.close()


class Cluster:
    """`hexgen serve` with agents. Use it in a `with`, or call start() and stop()."""

    def __init__(self, agents=UNLIKE_AGENTS, serve=(), environment=None, ready=True, device="none", source=None):
        self.source = source or model()
        self.agents, self.serve_flags, self.wait_ready = agents, tuple(serve), ready
        self.device = device
        self.extra_environment = environment or {}
        self.processes = []
        self.folder = None
        self.api_key = None
        if "--api-key" in self.serve_flags:
            self.api_key = self.serve_flags[self.serve_flags.index("--api-key") + 1]

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="hexgen-test-")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("HEXGEN_")}
        self.environment.update(XDG_STATE_HOME=self.folder, **self.extra_environment)
        try:
            self.serve = self.run("serve", "serve", self.source, "--served-model-name", "smollm2", "--device", self.device,
                                  "--port", "0", "--fabric-port", "0", *self.serve_flags)
            line = wait_for(lambda: self.running() and re.search(
                r"http://([\d.]+):(\d+)/v1, fabric (\S+)", self.serve.text()), START_S, self.tails)
            self.host, self.port, self.fabric = line[1], int(line[2]), line[3]
            for i, device in enumerate(self.agents):
                self.join(f"a{i + 1}", device)
            if self.wait_ready and (self.agents or self.device != "none"):
                wait_for(lambda: self.running() and self.get("/health").status == 200, START_S, self.tails)
        except BaseException:
            self.stop()
            raise
        return self

    __enter__ = start

    def __exit__(self, kind, value, trace):
        if kind is not None and self.folder:
            print(self.tails())
        self.stop()

    def stop(self):
        for one in self.processes:
            one.end()
        self.processes = []
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def run(self, name, *arguments, prefix=()):
        process = Process(self.folder, name, arguments, self.environment, prefix)
        self.processes.append(process)
        return process

    def join(self, name, device, *flags):
        return self.run(name, "join", self.fabric, "--name", name, "--device", device, "--model", model(), *flags)

    def join_in(self, namespace, name, device, *flags):
        """As join(), in a network namespace."""
        return self.run(name, "join", self.fabric, "--name", name, "--device", device, "--model", model(), *flags,
                        prefix=("ip", "netns", "exec", namespace))

    def agent(self, name):
        return next(p for p in self.processes if p.name == name)

    def running(self):
        dead = [p.name for p in self.processes if not p.alive()]
        if dead:
            raise AssertionError(f"{', '.join(dead)} ended early\n" + self.tails())
        return True

    def tails(self):
        return "\n".join(p.tail() for p in self.processes)

    def command(self, *arguments, timeout=START_S):
        """Runs a verb to its end; returns (exit code, standard output, standard error)."""
        done = subprocess.run([binary(), *arguments], env=self.environment, timeout=timeout, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True)
        return done.returncode, done.stdout, done.stderr

    # -- HTTP ----------------------------------------------------------------------------------

    def open(self, method, path, body=None, headers=None, timeout=START_S):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        headers = dict(headers or {})
        if self.api_key and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        return connection

    def call(self, method, path, body=None, headers=None, timeout=START_S):
        connection = self.open(method, path, body, headers, timeout)
        try:
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.call("GET", path, headers=headers)

    def post(self, path, body, headers=None, timeout=START_S):
        return self.call("POST", path, body, headers, timeout)

    def stream(self, path, body, headers=None, timeout=START_S):
        connection = self.open("POST", path, {**body, "stream": True}, headers, timeout)
        return Stream(connection, connection.getresponse())

    def streamed(self, path, body):
        """The whole stream: its chunks, checked to end with [DONE]."""
        stream = self.stream(path, body)
        assert stream.status == 200, stream.response.read()
        payloads = list(stream.payloads())
        stream.close()
        assert payloads and payloads[-1] == "[DONE]", payloads[-1:]
        return [json.loads(p) for p in payloads[:-1]]

    def cluster(self):
        return self.get("/cluster").json()

    def loads(self):
        """The last report of every replica that has sent one; a replica serves before its first report."""
        return [r["load"] for r in self.cluster()["plan"]["replicas"] if "load" in r]

    def metric(self, name):
        """Sum over the labels of one metric."""
        values = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", self.get("/metrics").body.decode(), re.M)
        return sum(map(float, values))


def together(tasks):
    """Runs the functions at once; returns their results in order, raises the first failure."""
    results, failures = [None] * len(tasks), []

    def one(i):
        try:
            results[i] = tasks[i]()
        except BaseException as e:  # handed to the caller below
            failures.append(e)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(tasks))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]
    return results
