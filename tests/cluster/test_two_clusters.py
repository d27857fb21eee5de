"""Two clusters whose agents share a host and its Docker: each touches only what is its own, and says what stands in its way."""

import json
import os
import shutil
import subprocess

import pytest

from cli_programs import bin_dir
from lab import Api, wait_until

CLUSTER = {"nodes": 1, "backend": "btrfs", "docker": True, "images": ["busybox"]}
IMAGE = "flocker-lab/busybox:1"
SERVE = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]
API_PORT, AGENT_PORT = 5523, 5524


class Second:
    """Another cluster on the hosts of the lab's: own authority, own control service, own agent with a pool of its own on h1."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.top = cluster.path("second")
        self.address = cluster.variables["FLOCKER_CONTROL_SERVICE"]
        os.makedirs(self.top, mode=0o700)
        self.ca("initialize", "second")
        self.install(self.ca("create-control-certificate", self.address), "control", "control-service")
        node = self.ca("create-node-certificate")
        self.node = os.path.splitext(node[0])[0]
        self.install(node, "agent", "node")
        self.install(self.ca("create-api-certificate", "user"), "client", "user")
        config = {"version": 1, "control-service": {"hostname": self.address, "port": AGENT_PORT},
                  "dataset": {"backend": "btrfs", "pool": f"{self.top}/pool.img"}, "move": {"port": 4526}}
        with open(f"{self.top}/agent/agent.yml", "w", encoding="utf-8") as f:
            json.dump(config, f)
        self.start("control", "flocker-control", "--data-path", f"{self.top}/store", "--port", f"tcp:{API_PORT}",
                   "--agent-port", f"tcp:{AGENT_PORT}", "--certificates-directory", f"{self.top}/control")
        self.start_agent()
        self.api = Api(int(cluster.variables["CLIENT_PID"]), self.address, API_PORT, f"{self.top}/client")
        wait_until(lambda: [n["uuid"] for n in self.api.nodes()] == [self.node], "the second cluster's node", 30)

    def ca(self, *words):
        """The names of the files that it made."""
        before = set(os.listdir(self.top))
        subprocess.run([bin_dir() / "flocker-ca", words[0], "--key-type", "ec", *words[1:]], cwd=self.top, check=True,
                       capture_output=True)
        return sorted(set(os.listdir(self.top)) - before)

    def install(self, pair, folder, name):
        os.makedirs(f"{self.top}/{folder}", mode=0o700, exist_ok=True)
        shutil.copy2(f"{self.top}/cluster.crt", f"{self.top}/{folder}")
        for file in pair:
            shutil.copy2(f"{self.top}/{file}", f"{self.top}/{folder}/{name}{os.path.splitext(file)[1]}")

    def start(self, host, program, *words):
        os.makedirs(f"{self.top}/store", exist_ok=True)
        self.cluster.shell(host, f"setsid {bin_dir() / program} {' '.join(words)} >>{self.top}/{program}.log 2>&1 </dev/null &"
                                 f" echo $! >{self.top}/{program}.pid")

    def start_agent(self):
        self.start("h1", "flocker-agent", "--agent-config", f"{self.top}/agent/agent.yml", "--state-dir", f"{self.top}/state")

    def stop_agent(self):
        self.cluster.shell("h1", f"p=$(cat {self.top}/flocker-agent.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.05; done")

    def log(self):
        with open(f"{self.top}/flocker-agent.log", encoding="utf-8", errors="replace") as f:
            return f.read()


@pytest.fixture(scope="module")
def second(cluster):
    return Second(cluster)


def containers(cluster):
    """Docker's, of both: name and id. A container that is made anew has another id."""
    lines = cluster.run("h1", "docker", "ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}").splitlines()
    return dict(line.split() for line in lines)


def is_running(api, name):
    return any(c["name"] == name and c["running"] for c in api.container_states())


def run(api, node, name, **settings):
    api.create_container(node, name, IMAGE, command_line=SERVE, **settings)


def reason(api, name):
    return api.expect("GET", f"/v1/state/containers/{name}")["reason"] or {"code": None}


def with_data(api, node, name):
    dataset = api.create_dataset(node)
    run(api, node, name, volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
    wait_until(lambda: is_running(api, name), f"{name} runs")
    return dataset


def test_each_only_its_own(cluster, second):
    first = cluster.api
    data = {"one": with_data(first, cluster.node("h1"), "one"), "two": with_data(second.api, second.node, "two")}
    cluster.run("h1", "docker", "run", "-d", "--name", "of-nobody", IMAGE, "sleep", "1000")
    before = containers(cluster)
    assert set(before) == {"flocker--one", "flocker--two", "of-nobody"}
    assert [c["name"] for c in first.container_states()] == ["one"]
    assert [c["name"] for c in second.api.container_states()] == ["two"]
    # Both agents anew: what runs is known again, and what is of the other stays.
    cluster.stop("h1", "agent")
    second.stop_agent()
    second.start_agent()
    cluster.start("h1", "agent")
    cluster.wait_nodes(["h1"])
    wait_until(lambda: is_running(first, "one") and is_running(second.api, "two"), "both know what runs")
    assert containers(cluster) == before
    mounts = cluster.shell("h1", "grep -o '/flocker/[^ ]*' /proc/mounts")
    assert all(dataset in mounts for dataset in data.values())
    # One cluster is emptied.
    first.delete_container("one")
    first.delete_dataset(data["one"])
    cluster.wait_gone(data["one"])
    assert set(containers(cluster)) == {"flocker--two", "of-nobody"}
    assert containers(cluster)["flocker--two"] == before["flocker--two"]
    second.api.delete_container("two")
    wait_until(lambda: set(containers(cluster)) == {"of-nobody"}, "the second cluster's goes, too")
    second.api.delete_dataset(data["two"])
    wait_until(lambda: second.api.dataset_states() == [], "its dataset goes", 60)
    cluster.run("h1", "docker", "rm", "-f", "of-nobody")


def test_names_and_ports_that_clash(cluster, second):
    first, node = cluster.api, cluster.node("h1")
    run(first, node, "web", ports=[{"internal": 80, "external": 8080}])
    wait_until(lambda: is_running(first, "web"), "web runs")
    before = containers(cluster)
    run(second.api, second.node, "web")
    wait_until(lambda: reason(second.api, "web")["code"] == "name-taken", "the taken name is said")
    run(second.api, second.node, "other", ports=[{"internal": 80, "external": 8080}])
    wait_until(lambda: reason(second.api, "other")["code"] == "port-in-use", "the taken port is said")
    assert "8080" in reason(second.api, "other")["text"]
    assert not is_running(second.api, "web") and containers(cluster)["flocker--web"] == before["flocker--web"]
    # When the first cluster has no use for them any more, the second has them.
    first.delete_container("web")
    wait_until(lambda: is_running(second.api, "web") and is_running(second.api, "other"), "both run", 60)
    assert containers(cluster)["flocker--web"] != before["flocker--web"]
    for name in ("web", "other"):
        second.api.delete_container(name)
    wait_until(lambda: containers(cluster) == {}, "nothing is left")
