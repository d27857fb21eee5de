"""docs/tutorial.md as it stands, and its shop under load while its database moves."""

import http.client
import os
import re
import subprocess
import time

import pytest

from lab import CHECKOUT, connect_in, wait_until
from volumes import Background

CLUSTER = {"nodes": 3, "backend": "btrfs", "docker": True, "images": ["postgres", "redis", "shop"]}
EXAMPLES = os.path.join(CHECKOUT, "docs", "examples")
HOSTS = ("h1", "h2", "h3")


class Shell:
    """Runs commands as somebody in `lab/cluster exec client bash` would, one after the other."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.folder = EXAMPLES

    def run(self, command, timeout=90):
        script = f"PATH={CHECKOUT}/lab:$PATH; cd {self.folder}; {command}\necho; pwd"
        done = subprocess.run([os.path.join(CHECKOUT, "lab", "cluster"), "--dir", self.cluster.directory, "exec", "client",
                               "bash", "-c", script], capture_output=True, text=True, check=True, timeout=timeout,
                              stdin=subprocess.DEVNULL)
        output, _, self.folder = done.stdout.rstrip("\n").rpartition("\n")
        assert self.folder.startswith(EXAMPLES), done
        return output, done.stderr


def sessions(text):
    """(command, what it is said to print) of the blocks that begin with a prompt."""
    for block in re.findall(r"^```\n(\$ .*?)^```$", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def says(expected, got):
    """`...` stands for anything; spaces that only align columns do not count."""
    def squeeze(text):
        return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
    pattern = ".*".join(re.escape(part) for part in squeeze(expected).split("..."))
    return re.fullmatch(pattern, squeeze(got), re.S)


@pytest.mark.deadline(300)
def test_as_it_stands(cluster):
    with open(os.path.join(CHECKOUT, "docs", "tutorial.md"), encoding="utf-8") as f:
        steps = list(sessions(f.read()))
    assert len(steps) >= 20
    shell = Shell(cluster)
    for command, expected in steps:
        output, errors = shell.run(command)
        assert says(expected, output), f"$ {command}\n{output}\n{errors}\nthe tutorial says:\n{expected}"


def ask(cluster, host, method, path, body=None, timeout=10):
    """Status and text from the shop, by a host's address."""
    connection = http.client.HTTPConnection(cluster.address(host), 8080, timeout=timeout)
    connection.sock = connect_in(int(cluster.variables["CLIENT_PID"]), (cluster.address(host), 8080), timeout)
    try:
        connection.request(method, "/cgi-bin/shop/" + path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()
    finally:
        connection.close()


class Visitor(Background):
    """Visits the shop by each host in turn. Not one visit fails, and the count only grows."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster, self.visits, self.count, self.longest = cluster, 0, 0, 0.0

    def turn(self):
        began = time.monotonic()
        status, text = ask(self.cluster, HOSTS[self.visits % 3], "GET", "visits")
        assert status == 200 and int(text) > self.count, (status, text, self.count)
        self.visits, self.count = self.visits + 1, int(text)
        self.longest = max(self.longest, time.monotonic() - began)


class Buyer(Background):
    """Orders by each host in turn; remembers what was confirmed, and the longest time without a confirmation."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster, self.tries, self.confirmed, self.refused = cluster, 0, {}, 0
        self.last, self.gap = time.monotonic(), 0.0

    def turn(self):
        self.tries += 1
        try:
            status, text = ask(self.cluster, HOSTS[self.tries % 3], "POST", "orders", f"item-{self.tries}\n")
        except OSError as e:
            raise AssertionError("the web part itself does not answer") from e
        if status != 201:
            assert status == 503, (status, text)
            self.refused += 1
            return
        now = time.monotonic()
        self.gap, self.last = max(self.gap, now - self.last), now
        self.confirmed[int(text)] = f"item-{self.tries}"


@pytest.mark.deadline(240)
def test_the_database_moves_while_the_shop_serves(cluster, record_property):
    shell = Shell(cluster)
    shell.run("cd shop; flocker-deploy --wait 10.77.0.10 deployment.yml three-tiers.yml")
    wait_until(lambda: ask(cluster, "h3", "POST", "orders", "first\n")[0] == 201, "the shop takes orders", 30)
    wait_until(lambda: ask(cluster, "h3", "GET", "visits")[0] == 200, "the shop counts visits", 30)
    web = cluster.run("h2", "docker", "inspect", "-f", "{{.State.StartedAt}}", "flocker--web")
    with Visitor(cluster) as visitor, Buyer(cluster) as buyer:
        wait_until(lambda: len(buyer.confirmed) >= 10, "ten orders")
        shell.run("flocker-deploy --wait 10.77.0.10 db-moved.yml three-tiers.yml")
        wait_until(lambda: cluster.wait_container("db", "h3"), "the database on the third host")
        before, visits = len(buyer.confirmed), visitor.visits
        wait_until(lambda: len(buyer.confirmed) >= before + 10 and visitor.visits >= visits + 10, "orders go on", 60)
    status, text = ask(cluster, "h1", "GET", "orders")
    kept = dict(line.split(" ", 1) for line in text.splitlines())
    assert status == 200
    assert {n: kept.get(str(n)) for n in buyer.confirmed} == buyer.confirmed
    assert cluster.run("h2", "docker", "inspect", "-f", "{{.State.StartedAt}}", "flocker--web") == web
    record_property("orders_gap_ms", round(buyer.gap * 1000))
    print(f"{len(buyer.confirmed)} orders confirmed, {buyer.refused} refused; no order for {buyer.gap:.2f} s; "
          f"{visitor.visits} visits, the longest {visitor.longest:.2f} s")
    assert buyer.gap < 30
