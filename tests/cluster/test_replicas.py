"""What a move leaves behind: kept as a replica, so that moving back ships the difference only, and never longer than it should."""

import fcntl
import json
import os
import struct
import subprocess
import time

import pytest

from lab import CLUSTER as LAB
from lab import holds, wait_until
from test_crashes import go_on, start_pausing, wait_paused
from volumes import POOL, create, delete, digest, fill, inside, pool, state, volume, wait_settled

CLUSTER = {"nodes": 3, "backend": ["btrfs", "zfs"]}
ONLY = {"zfs": ["test_there_and_back", "test_deleted_with_a_replica", "test_of_limited_datasets", "test_compared"]}
HOSTS = ["h1", "h2", "h3"]
BIG = 40 << 20


@pytest.fixture(name="dataset")
def dataset_fixture(cluster):
    dataset = create(cluster, "h1")
    fill(volume(cluster, "h1", dataset), big=BIG)
    yield dataset
    for host in HOSTS:
        go_on(cluster, host)
        cluster.start(host)
    if any(d["dataset_id"] == dataset and not d["deleted"] for d in cluster.api.datasets()):
        delete(cluster, dataset, HOSTS)


def others(host):
    return [h for h in HOSTS if h != host]


def move(cluster, dataset, host):
    cluster.api.move_dataset(dataset, cluster.node(host))
    wait_settled(cluster, dataset, host, others(host), 60)


def replica_on(cluster, dataset):
    """The host that has the replica, or None."""
    replica = state(cluster, dataset)["replica"]
    return next(h for h in HOSTS if cluster.node(h) == replica["node"]) if replica else None


def bytes_sent(cluster, host):
    """By its network interface."""
    return json.loads(cluster.run(host, "ip", "-s", "-j", "link", "show", "eth0"))[0]["stats64"]["tx"]["bytes"]


def listed(cluster):
    return {r["dataset_id"]: r["node"] for r in cluster.api.expect("GET", "/v1/replicas")}


def test_there_and_back(cluster, dataset):
    before = bytes_sent(cluster, "h1")
    move(cluster, dataset, "h2")
    assert bytes_sent(cluster, "h1") - before > BIG
    assert replica_on(cluster, dataset) == "h1"
    assert listed(cluster)[dataset] == cluster.node("h1")
    assert 23 * 3600 < state(cluster, dataset)["replica"]["until"] - time.time() <= 24 * 3600
    assert dataset in cluster.ctl("list-replicas")
    assert f"  replica    {cluster.node('h1')[:8]}" in cluster.ctl("show", dataset)
    with open(volume(cluster, "h2", dataset, "more"), "wb") as f:
        f.write(os.urandom(100000))
    os.sync()
    content = digest(volume(cluster, "h2", dataset))
    before = bytes_sent(cluster, "h2")
    move(cluster, dataset, "h1")
    assert bytes_sent(cluster, "h2") - before < BIG // 10
    assert digest(volume(cluster, "h1", dataset)) == content
    assert replica_on(cluster, dataset) == "h2"
    move(cluster, dataset, "h3")
    assert digest(volume(cluster, "h3", dataset)) == content
    assert replica_on(cluster, dataset) == "h1"
    cluster.ctl("drop-replica", dataset)
    wait_settled(cluster, dataset, "h3", others("h3"))
    assert replica_on(cluster, dataset) is None
    assert dataset not in listed(cluster)
    assert pool(cluster, "h3", dataset) == {"vol", "mark"}


def test_deleted_with_a_replica(cluster, dataset):
    move(cluster, dataset, "h2")
    assert replica_on(cluster, dataset) == "h1"
    delete(cluster, dataset, HOSTS)
    assert dataset not in listed(cluster)


def test_of_limited_datasets(cluster):
    """On btrfs a snapshot that is kept counts against the limit, so none is."""
    dataset = create(cluster, "h1", maximum_size=1 << 30)
    move(cluster, dataset, "h2")
    assert replica_on(cluster, dataset) == (None if cluster.backend == "btrfs" else "h1")
    delete(cluster, dataset, HOSTS)


@pytest.mark.parametrize("at", ["before-demote", "after-demote", "before-prune"])
def test_killed_while_it_becomes_a_replica(cluster, dataset, at):
    start_pausing(cluster, "h1", at)
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_paused(cluster, "h1", 40)
    cluster.kill("h1")
    cluster.start("h1")
    wait_settled(cluster, dataset, "h2", others("h2"), 60)
    assert replica_on(cluster, dataset) == "h1"


def test_cancelled_elsewhere(cluster, dataset):
    move(cluster, dataset, "h2")
    start_pausing(cluster, "h2", "before-release")
    cluster.api.move_dataset(dataset, cluster.node("h3"))
    wait_paused(cluster, "h2", 40)
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    go_on(cluster, "h2")
    wait_settled(cluster, dataset, "h2", others("h2"), 60)
    assert replica_on(cluster, dataset) == "h1"


def verify(cluster, dataset, *words):
    """What `flockerctl verify` says and exits with."""
    done = subprocess.run([LAB, "--dir", cluster.directory, "ctl", "verify", dataset, *words], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL, timeout=120)
    return done.returncode, done.stdout + done.stderr


def flip(cluster, host, dataset):
    """One byte of the replica becomes another, behind everybody's back: what is read-only for all is not for a disk."""
    set_flags = 0x4008941A  # BTRFS_IOC_SUBVOL_SETFLAGS
    (name,) = [n for n in pool(cluster, host, dataset) if n.startswith("snap/")]
    top = inside(cluster, host, POOL, dataset, name)
    files = [os.path.join(where, f) for where, _, found in os.walk(top) for f in found]
    file = max((f for f in files if os.path.isfile(f) and not os.path.islink(f)), key=os.path.getsize)
    folder = os.open(top, os.O_RDONLY)
    try:
        fcntl.ioctl(folder, set_flags, struct.pack("Q", 0))
        times = os.stat(file)
        with open(file, "r+b", buffering=0) as f:
            old = os.pread(f.fileno(), 1, 1000)
            os.pwrite(f.fileno(), bytes([old[0] ^ 1]), 1000)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        fcntl.ioctl(folder, set_flags, struct.pack("Q", 2))
    finally:
        os.close(folder)
    os.sync()


def test_compared(cluster, dataset):
    status, said = verify(cluster, dataset)
    assert status == 1 and "has no replica" in said, said
    move(cluster, dataset, "h2")
    with open(volume(cluster, "h2", dataset, "newer"), "wb") as f:
        f.write(os.urandom(1000))  # is not in what is compared
    assert state(cluster, dataset)["verification"] is None
    status, said = verify(cluster, dataset)
    assert status == 0 and "is the same as" in said, said
    found = state(cluster, dataset)["verification"]
    assert (found["result"], found["owner"], found["node"]) == ("equal", cluster.node("h2"), cluster.node("h1"))
    assert found["asked"] <= found["ended"] <= time.time()
    assert replica_on(cluster, dataset) == "h1"
    assert "  verified   " in cluster.ctl("show", dataset)
    status, said = verify(cluster, dataset, "-o", "json")
    again = json.loads(said)
    assert status == 0 and again["result"] == "equal" and again["id"] != found["id"]
    move(cluster, dataset, "h1")  # what was compared is as good as before
    assert replica_on(cluster, dataset) == "h2"


def test_a_replica_that_was_changed(cluster, dataset):
    move(cluster, dataset, "h2")
    content = digest(volume(cluster, "h2", dataset))
    flip(cluster, "h1", dataset)
    # While it was being changed it was no snapshot: when the node looked at that moment, it must look again.
    cluster.stop("h1", "agent")
    cluster.start("h1", "agent")
    cluster.wait_nodes(HOSTS)

    status, said = verify(cluster, dataset)
    assert status == 1 and "is not the same as" in said and "is removed" in said, said
    assert state(cluster, dataset)["verification"]["result"] == "differs"
    wait_until(lambda: replica_on(cluster, dataset) is None, "the end of the replica", 20)
    wait_settled(cluster, dataset, "h2", others("h2"))
    assert pool(cluster, "h1", dataset) == set()
    with open(cluster.path("h1", "log", "agent"), encoding="utf-8", errors="replace") as f:
        assert "was not the same" in f.read()
    before = bytes_sent(cluster, "h2")
    move(cluster, dataset, "h1")  # whole: nothing is left that an increment could be put on
    assert bytes_sent(cluster, "h2") - before > BIG
    assert digest(volume(cluster, "h1", dataset)) == content


@pytest.mark.parametrize("away", ["h1", "h2"])
def test_compared_with_a_node_that_is_away(cluster, dataset, away):
    move(cluster, dataset, "h2")
    cluster.kill(away, "agent")
    wait_until(lambda: not any(n["uuid"] == cluster.node(away) for n in cluster.api.nodes()), "the node away", 30)
    status, said = verify(cluster, dataset)
    assert status == 1 and "is not connected" in said and cluster.node(away) in said, said
    cluster.start(away, "agent")
    wait_settled(cluster, dataset, "h2", others("h2"))
    assert verify(cluster, dataset)[0] == 0


@pytest.mark.parametrize("killed", ["h1", "h2", "control"])
def test_killed_while_it_is_compared(cluster, dataset, killed):
    """Whoever waits is told; nothing is left over, and a next one goes well."""
    move(cluster, dataset, "h2")
    start_pausing(cluster, "h2", "before-verify")
    wait_settled(cluster, dataset, "h2", others("h2"))
    status, said = verify(cluster, dataset, "--no-wait")
    assert status == 0 and "is being compared" in said, said
    wait_paused(cluster, "h2", 40)
    cluster.kill(killed, "control" if killed == "control" else "agent")
    if killed == "control":
        cluster.start(killed, "control")
        cluster.wait_nodes(HOSTS)
        assert state(cluster, dataset)["verification"] is None
    else:
        wait_until(lambda: state(cluster, dataset)["verification"]["result"] == "failed", "its end", 30)
        assert "is not connected" in state(cluster, dataset)["verification"]["text"]
        cluster.start(killed, "agent")
    go_on(cluster, "h2")
    wait_settled(cluster, dataset, "h2", others("h2"))
    assert verify(cluster, dataset)[0] == 0


def test_moved_while_it_is_compared(cluster, dataset):
    move(cluster, dataset, "h2")
    start_pausing(cluster, "h2", "before-verify")
    wait_settled(cluster, dataset, "h2", others("h2"))
    assert verify(cluster, dataset, "--no-wait")[0] == 0
    wait_paused(cluster, "h2", 40)
    cluster.api.move_dataset(dataset, cluster.node("h3"))
    wait_until(lambda: state(cluster, dataset)["verification"]["result"] == "failed", "its end", 30)
    status, said = verify(cluster, dataset)
    assert status == 1 and "is under way" in said, said
    go_on(cluster, "h2")
    wait_settled(cluster, dataset, "h3", others("h3"), 60)


def test_space_is_wanted(cluster, dataset):  # the last one of this cluster: h1 finds out that it has room again only minutes later
    move(cluster, dataset, "h2")
    file = inside(cluster, "h1", POOL, "..", "stuffing")
    place = os.statvfs(os.path.dirname(file))
    with open(file, "wb") as f:
        os.posix_fallocate(f.fileno(), 0, (place.f_bavail - place.f_blocks // 20) * place.f_frsize)
    os.sync()  # btrfs tells of it only after its next commit
    try:
        cluster.kill("h1", "agent")
        cluster.start("h1", "agent")  # it looks at its space when it starts, and every five minutes
        wait_until(lambda: replica_on(cluster, dataset) is None, "the replica given up", 40)
        wait_settled(cluster, dataset, "h2", others("h2"))
    finally:
        os.unlink(file)


def test_time_is_over(make_cluster):
    cluster = make_cluster(nodes=2, options=["--keep-replica", "12s"])
    dataset = create(cluster, "h1")
    fill(volume(cluster, "h1", dataset))
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_settled(cluster, dataset, "h2", ["h1"])
    assert state(cluster, dataset)["replica"]["node"] == cluster.node("h1")
    cluster.kill("control", "control")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1", "h2"])
    wait_until(lambda: state(cluster, dataset)["replica"] is None, "its end", 40)
    wait_settled(cluster, dataset, "h2", ["h1"])
    holds(lambda: pool(cluster, "h1", dataset) == set() and pool(cluster, "h2", dataset) == {"vol", "mark"}, "nothing left", 1.0)
    delete(cluster, dataset, ["h1", "h2"])
