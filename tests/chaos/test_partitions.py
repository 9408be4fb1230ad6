"""Links that go down, and partitions of one direction, between network namespaces."""

import os
import shutil
import subprocess
import time
import unittest

import clients
import harness

SWITCH, HOST = "hxsw", "10.77.1.2"
AGENTS = {"a1": "10.77.11.2", "a2": "10.77.12.2", "a3": "10.77.13.2", "a4": "10.77.14.2"}
DEVICE = "cpu:threads=1,memory=150MiB"
only_long = unittest.skipUnless(clients.LONG, "in tools/test.sh --long")


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


def permitted():
    """Why it cannot be tested here; empty: it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip") or not shutil.which("nft"):
        return "Debian's iproute2 and nftables are not installed"
    made = ip("netns", "add", "hxprobe", check=False)
    works = made.returncode == 0 and ip("netns", "exec", "hxprobe", "nft", "list", "ruleset", check=False).returncode == 0
    ip("netns", "del", "hxprobe", check=False)
    return "" if works else f"network namespaces are not permitted here: {made.stderr.strip()}"


class Network:
    """One namespace an agent, each behind a link of its own to a namespace that routes between them."""

    def __enter__(self):
        self.__exit__()
        ip("netns", "add", SWITCH)
        subprocess.run(["ip", "netns", "exec", SWITCH, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        self.plug("hxhost", None, HOST)
        for name, address in AGENTS.items():
            ip("netns", "add", f"hx{name}")
            ip("-n", f"hx{name}", "link", "set", "lo", "up")
            self.plug("eth0", f"hx{name}", address)
        return self

    def __exit__(self, *_):
        ip("link", "del", "hxhost", check=False)
        for space in (SWITCH, *(f"hx{name}" for name in AGENTS)):
            ip("netns", "del", space, check=False)

    def plug(self, device, space, address):
        """A link from `space` (None: this one) to the router, which has the address before it."""
        net, port = address.rsplit(".", 1)[0], f"p{address.split('.')[2]}"
        ip("link", "add", f"hx{port}", "type", "veth", "peer", "name", port, "netns", SWITCH)
        ip("-n", SWITCH, "address", "add", f"{net}.1/24", "dev", port)
        ip("-n", SWITCH, "link", "set", port, "up")
        inside = ("-n", space) if space else ()
        ip("link", "set", f"hx{port}", "name", device, *(("netns", space) if space else ()))
        ip(*inside, "address", "add", f"{address}/24", "dev", device)
        ip(*inside, "link", "set", device, "up")
        ip(*inside, "route", "add", "10.77.0.0/16", "via", f"{net}.1")

    def link(self, name, state):
        ip("-n", SWITCH, "link", "set", f"p{AGENTS[name].split('.')[2]}", state)

    def deaf(self, name, to=None):
        """What `to` (None: everybody) sends no longer reaches `name`; what it sends still leaves."""
        source = f"ip saddr {AGENTS[to]} " if to else ""
        rules = ("add table inet cut\nadd chain inet cut in { type filter hook input priority 0; }\n"
                 f"add rule inet cut in iif lo accept\nadd rule inet cut in {source}drop\n")
        subprocess.run(["ip", "netns", "exec", f"hx{name}", "nft", "-f", "-"], input=rules, text=True, check=True)

    def apart(self, one, other):
        """Nothing passes between the two; with everybody else both go on."""
        a, b = AGENTS[one], AGENTS[other]
        rules = ("add table inet apart\nadd chain inet apart way { type filter hook forward priority 0; }\n"
                 f"add rule inet apart way ip saddr {a} ip daddr {b} drop\n"
                 f"add rule inet apart way ip saddr {b} ip daddr {a} drop\n")
        subprocess.run(["ip", "netns", "exec", SWITCH, "nft", "-f", "-"], input=rules, text=True, check=True)

    def hearing(self, name):
        subprocess.run(["ip", "netns", "exec", f"hx{name}", "nft", "flush", "ruleset"], check=True)


class Partitions(unittest.TestCase):
    def partition(self, cut, heal, seconds=4, layout=("--stages", "1,1,1", "--layers", "12,10,8"), device=DEVICE):
        why = permitted()
        if why:
            self.skipTest(why)
        flags = (*layout, "--fabric-host", HOST, "--api-key", "k" * 32)
        with Network() as network, harness.Cluster(
                agents=(), serve=flags, environment={"HEXGEN_CLUSTER_TOKEN": "5" * 64}) as cluster:
            for name, address in AGENTS.items():
                cluster.join_in(f"hx{name}", name, device, "--fabric-host", address)
            clients.full(cluster, AGENTS, stages=3 if layout else None)
            answers = clients.undisturbed(cluster)
            with clients.Load(cluster, answers, 2) as load:
                harness.wait_for(lambda: load.finished >= 2, harness.START_S, cluster.tails)
                cut(network, clients.nodes_of(clients.full(cluster, AGENTS, stages=3 if layout else None)[0]))
                time.sleep(seconds)
                before = load.finished
                harness.wait_for(lambda: load.finished >= before + 2, harness.START_S, cluster.tails)
                heal(network)
                clients.full(cluster, AGENTS, stages=3 if layout else None, seconds=90)
                before = load.finished
                harness.wait_for(lambda: load.finished >= before + 2, harness.START_S, cluster.tails)
            self.assertEqual(load.violations, [], cluster.serve.text()[-6000:])

    def test_link_down(self):
        self.partition(lambda network, nodes: network.link("a2", "down"), lambda network: network.link("a2", "up"))

    @only_long
    def test_an_agent_that_hears_nobody(self):
        self.partition(lambda network, nodes: network.deaf("a2"), lambda network: network.hearing("a2"))

    @only_long
    def test_a_stage_that_does_not_hear_the_one_before(self):
        self.partition(lambda network, nodes: network.deaf("a2", to="a1"), lambda network: network.hearing("a2"),
                       layout=(), device="cpu:threads=1,memory=80MiB")

    @only_long
    def test_the_whole_link_down_for_20_s(self):
        self.partition(lambda network, nodes: network.link("a2", "down"), lambda network: network.link("a2", "up"), 20)


if __name__ == "__main__":
    unittest.main()
