"""Docker Swarm: a service's task that is started on another host finds its volume's data there."""

import pytest

from lab import WaitTimeout, holds, wait_until
from plugin_client import configure

CLUSTER = {"nodes": 3, "backend": "btrfs", "docker": True, "images": ["busybox"]}
HOSTS = ("h1", "h2", "h3")
IMAGE = "flocker-lab/busybox:1"
WAIT = 5  # of agent.yml: how long a mount waits for a volume that is in use elsewhere
# Each line is on disk before the next one, and says who wrote it.
WRITER = 'i=$(wc -l </data/log 2>/dev/null || echo 0); while :; do i=$((i + 1)); echo "$i $(hostname)" >>/data/log; sync /data/log; sleep 0.05; done'


class Swarm:
    """Three managers: any one may die."""

    def __init__(self, cluster):
        self.cluster = cluster
        configure(cluster, HOSTS, wait=WAIT)
        cluster.run("h1", "docker", "swarm", "init", "--advertise-addr", cluster.address("h1"))
        token = cluster.run("h1", "docker", "swarm", "join-token", "-q", "manager").strip()
        for host in HOSTS[1:]:
            cluster.run(host, "docker", "swarm", "join", "--token", token, f"{cluster.address('h1')}:2377")

    def create(self, name, volume, via="h1"):
        # This kernel has no IP_VS: no virtual addresses, ports of the host itself.
        self.cluster.run(via, "docker", "service", "create", "--detach", "--quiet", "--name", name, "--no-resolve-image", "--replicas", "1",
                         "--endpoint-mode", "dnsrr", "--hostname", "{{.Node.Hostname}}", "--restart-delay", "1s", "--stop-grace-period", "1s",
                         "--mount", f"type=volume,source={volume},target=/data,volume-driver=flocker,volume-opt=size=128M",
                         IMAGE, "sh", "-c", WRITER)

    def remove(self, name, via="h1"):
        self.cluster.run(via, "docker", "service", "rm", name)
        wait_until(lambda: not any(self.container(host, name) for host in HOSTS), f"{name} is gone", 60)

    def tasks(self, name, via):
        """Host, state and error of each task, the newest first."""
        lines = self.cluster.run(via, "docker", "service", "ps", name, "--no-trunc", "--format",
                                 "{{.Node}}|{{.DesiredState}}|{{.CurrentState}}|{{.Error}}").splitlines()
        return [line.split("|") for line in lines]

    def container(self, host, name):
        return self.cluster.run(host, "docker", "ps", "-q", "-f", f"label=com.docker.swarm.service.name={name}").strip()

    def running_on(self, name, hosts=HOSTS):
        found = [host for host in hosts if self.container(host, name)]
        return found[0] if len(found) == 1 else None

    def wait_running(self, name, hosts=HOSTS, timeout=90):
        try:
            return wait_until(lambda: self.running_on(name, hosts), f"{name} runs on one of {hosts}", timeout, 0.3)
        except WaitTimeout as e:
            raise AssertionError(f"{e}; its tasks: {self.tasks(name, hosts[0])}") from None

    def log(self, host, name):
        found = self.container(host, name)
        lines = self.cluster.run(host, "docker", "exec", found, "cat", "/data/log").splitlines() if found else []
        return [line for line in lines if line]

    def wait_writing(self, name, host, than=0):
        return wait_until(lambda: len(self.log(host, name)) > than + 5 and self.log(host, name), f"{name} writes on {host}", 60, 0.3,
                          tolerate=(AssertionError,))


def is_one_history(lines):
    """Nothing was lost, and nobody wrote beside: the numbers are 1, 2, 3, ..., but for a last line that was being written."""
    return [line.split()[0] for line in lines] == [str(i + 1) for i in range(len(lines))]


@pytest.mark.deadline(300)
def test_drained(cluster):
    swarm = Swarm(cluster)
    swarm.create("counter", "counted")
    first = swarm.wait_running("counter")
    before = swarm.wait_writing("counter", first)
    via = next(host for host in HOSTS if host != first)
    cluster.run(via, "docker", "node", "update", "--availability", "drain", first)
    second = swarm.wait_running("counter", [host for host in HOSTS if host != first])
    after = swarm.wait_writing("counter", second, len(before))
    assert after[:len(before)] == before and is_one_history(after)
    assert {line.split()[1] for line in after} == {first, second}
    cluster.run(via, "docker", "node", "update", "--availability", "active", first)
    swarm.remove("counter", via)
    # The service is gone, its volume is not: volumes outlive services.
    assert "counted" in cluster.run(via, "docker", "volume", "ls", "-q")
    cluster.run(via, "docker", "volume", "rm", "counted")


@pytest.mark.deadline(420)
def test_node_dies(make_cluster):
    """On shared storage: the task waits, with the reason, until somebody who knows says that the node is off."""
    cluster = make_cluster(**{**CLUSTER, "backend": "loopback"})
    swarm = Swarm(cluster)
    swarm.create("counter", "counted")
    first = swarm.wait_running("counter")
    before = swarm.wait_writing("counter", first)
    others = [host for host in HOSTS if host != first]
    node = cluster.node(first)
    dataset = next(d["dataset_id"] for d in cluster.api.datasets() if d["metadata"].get("name") == "counted")
    cluster.kill(first)
    # Swarm starts it elsewhere, and its mounts fail with who has the volume.
    failed = wait_until(lambda: [t for t in swarm.tasks("counter", others[0]) if t[0] in others and t[3]], "a task fails", 120, 1,
                        tolerate=(AssertionError,))  # while the managers elect a leader, they know nothing
    assert node[:8] in failed[0][3], failed
    holds(lambda: swarm.running_on("counter", others) is None, "the task waits", 5, 1)
    assert "flockerctl fence" in cluster.ctl("why", dataset)
    cluster.ctl("fence", node, "--confirm-off")
    second = swarm.wait_running("counter", others)
    after = swarm.wait_writing("counter", second, len(before))
    assert after[:len(before)] == before and is_one_history(after)
    assert {line.split()[1] for line in after} == {first, second}
