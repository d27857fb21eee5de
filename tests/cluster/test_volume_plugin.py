"""The Docker volume plugin under many calls at once, and used by podman."""

import concurrent.futures
import random
import threading

import pytest

from lab import wait_until
from plugin_client import HOSTS, IMAGE, SLEEP, configure, docker, fails, in_host, plugin

LONG = True


@pytest.mark.deadline(300)
def test_many_mounts_from_three_hosts(make_cluster):
    """200 mounts and unmounts of 50 volumes at once from three hosts: never is one usable on two."""
    cluster = make_cluster(nodes=3, backend="fake")
    configure(cluster, HOSTS, wait=110)
    plugins = {host: plugin(cluster, host) for host in HOSTS}
    volumes = [f"v{i:02}" for i in range(50)]
    chance = random.Random(7)
    work = [(v, host, f"{v}-{host}-{i}") for v in volumes for i, host in enumerate(chance.choices(HOSTS, k=4))]
    chance.shuffle(work)
    users = {v: [] for v in volumes}
    lock = threading.Lock()

    def one(volume, host, mount):
        plugins[host].ok("Create", Name=volume)
        path = plugins[host].ok("Mount", Name=volume, ID=mount)["Mountpoint"]
        with lock:
            users[volume].append(host)
            assert set(users[volume]) == {host}, f"{volume} is usable on {users[volume]}"
        # Whoever has it adds a line; a line that is lost was written to another copy.
        in_host(cluster, host, f"echo {mount} >>{path}/log")
        with lock:
            users[volume].remove(host)
        plugins[host].ok("Unmount", Name=volume, ID=mount)

    with concurrent.futures.ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(one, *w) for w in work]:
            done.result()
    wait_until(lambda: not cluster.api.leases(), "no lease is left")
    assert sorted(d["metadata"]["name"] for d in cluster.api.datasets()) == volumes  # no name twice
    for volume in volumes:
        path = plugins["h1"].ok("Mount", Name=volume, ID="check")["Mountpoint"]
        lines = in_host(cluster, "h1", f"cat {path}/log").split()
        assert sorted(lines) == sorted(mount for v, _, mount in work if v == volume)


@pytest.mark.deadline(400)
def test_podman(make_cluster):
    cluster = make_cluster(nodes=2, backend="btrfs", docker=True, images=["busybox"], options=["--engine", "podman"])
    hosts = ("h1", "h2")
    configure(cluster, hosts, wait=10)

    def podman(host, script):
        docker(cluster, host, "volume", "create", "-d", "flocker", "pod")
        return docker(cluster, host, "run", "--rm", "--network", "none", "-v", "pod:/data", IMAGE, "sh", "-ec", script)
    podman("h1", "echo pod >/data/x")
    assert podman("h2", "cat /data/x") == "pod"
    docker(cluster, "h1", "run", "-d", "--network", "none", "--name", "pod", "-v", "pod:/data", IMAGE, *SLEEP)
    docker(cluster, "h2", "create", "--network", "none", "--name", "second", "-v", "pod:/data", IMAGE, "true")
    # What `docker start` says of it depends on podman's version; it may even say nothing.
    said = cluster.lab("exec", "h2", "sh", "-c", 'docker start second 2>&1; docker inspect -f "running: {{.State.Running}}" second', timeout=60)
    assert "running: false" in said, said
    with open(cluster.path("h2", "log", "agent"), encoding="utf-8", errors="replace") as f:
        assert "has it mounted" in f.read()
    docker(cluster, "h2", "rm", "second")
    docker(cluster, "h1", "rm", "-f", "pod")
    assert podman("h2", "cat /data/x") == "pod"
    docker(cluster, "h1", "volume", "rm", "pod")
    wait_until(lambda: not [d for d in cluster.api.datasets() if not d["deleted"]], "the dataset is deleted")
