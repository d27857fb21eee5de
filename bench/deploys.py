"""How fast flocker-deploy makes a cluster be as a file says."""

import concurrent.futures
import os
import shlex
import statistics
import tempfile
import time

from hosts import Hosts
from report import CHECKOUT, emit

IMAGE = "flocker-lab/busybox:1"
COMMAND = "sh -c 'trap \"exit 0\" TERM; sleep 100000 & wait'"  # ends when it is told to
CONTAINERS = 50
AT_ONCE = 8  # docker run by hand
ROUNDS = 20
TURNS = 3
PROGRAM = os.path.join(CHECKOUT, "build", "bin", "flocker-deploy")
NODES = ("h1", "h2", "h3")


class Deploys(Hosts):
    """Three hosts with Docker, and a Compose file of many services."""

    def __init__(self):
        super().__init__(nodes=len(NODES), backend="btrfs", docker=True, images=["busybox"])
        with tempfile.NamedTemporaryFile("w", suffix=".yml", prefix="compose-", delete=False) as f:
            self.file = f.name
            f.write("name: bench\nservices:\n")
            for i in range(CONTAINERS):
                f.write(f"  service-{i:02}:\n    image: {IMAGE}\n    command: {COMMAND}\n")

    def down(self):
        os.unlink(self.file)
        super().down()

    def deploy(self):
        variables = self.cluster.variables
        self.on("client", PROGRAM, "-p", variables["FLOCKER_CONTROL_PORT"], "-c", variables["FLOCKER_CERTS_PATH"], "--spread",
                variables["FLOCKER_CONTROL_SERVICE"], self.file)

    def all_run(self):
        return sum(c["running"] for c in self.call("GET", "/v1/state/containers")) == CONTAINERS

    def remove_all(self):
        self.call("POST", "/v1/configuration/_compose", {"applications": {"services": {}}})
        self.wait(lambda: not self.call("GET", "/v1/state/containers"), "no container", 120, 0.1)

    def up(self):
        begun = time.monotonic()
        self.deploy()
        self.wait(self.all_run, f"{CONTAINERS} containers run", 300, 0.02)
        return time.monotonic() - begun

    def by_hand(self):
        def one(number):
            self.on(NODES[number % len(NODES)], "docker", "run", "-d", "--name", f"by-hand-{number}", IMAGE, *shlex.split(COMMAND))
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, range(CONTAINERS)))
        seconds = time.monotonic() - begun
        for i, host in enumerate(NODES):
            self.on(host, "docker", "rm", "-f", *(f"by-hand-{n}" for n in range(i, CONTAINERS, len(NODES))), timeout=300)
        return seconds

    # --- what is measured ------------------------------------------------------------------------------------------

    @staticmethod
    def timed(what):
        begun = time.monotonic()
        what()
        return 1000 * (time.monotonic() - begun)

    def deploy_noop(self):
        self.up()
        times, starts = [], []
        for _ in range(ROUNDS + 1):
            times.append(self.timed(self.deploy))
            starts.append(self.timed(lambda: self.on("client", PROGRAM, "--version")))
        self.remove_all()
        return emit("deploy_noop", statistics.median(times[1:]), "ms", goal=50, min=round(min(times[1:])),
                    max=round(max(times[1:])), rounds=ROUNDS, containers=CONTAINERS,
                    start_ms=round(statistics.median(starts[1:]), 1))

    def deploy_50(self):
        ours, theirs = [], []
        for _ in range(TURNS):
            ours.append(self.up())
            self.remove_all()
            theirs.append(self.by_hand())
        hand = statistics.median(theirs)
        return emit("deploy_50", statistics.median(ours), "s", goal=round(1.2 * hand, 2), theirs=hand,
                    peer=f"docker run -d, {AT_ONCE} at once", ours_each=[round(t, 1) for t in ours],
                    theirs_each=[round(t, 1) for t in theirs])
