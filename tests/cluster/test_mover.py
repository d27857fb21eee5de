"""What agent.yml says about moves, and what a move says about itself, on real nodes."""

import fcntl
import json
import os
import struct

import pytest

from lab import wait_until
from test_crashes import go_on, start_pausing, wait_paused
from volumes import POOL, create, delete, digest, fill, inside, state, volume, wait_reason, wait_settled

CLUSTER = {"nodes": 2, "backend": ["btrfs", "zfs"]}
ONLY = {"zfs": ["test_a_copy_is_compared_before_the_hand_off"]}
HOSTS = ["h1", "h2"]
MIB = 1 << 20
SUBVOL_SETFLAGS, SUBVOL_RDONLY = 0x4008941A, 2  # linux/btrfs.h


@pytest.fixture(name="dataset")
def dataset_fixture(cluster):
    made = create(cluster, "h1")
    yield made
    for host in HOSTS:
        go_on(cluster, host)
    delete(cluster, made, HOSTS)


@pytest.fixture(name="moves_with")
def moves_with_fixture(cluster):
    """Sets the section `move` of h1's agent.yml; the agent is started anew."""
    path = cluster.path("h1", "etc", "agent.yml")
    with open(path, encoding="utf-8") as f:
        before = f.read()

    def write(text):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        cluster.kill("h1", "agent")
        cluster.start("h1", "agent")
        cluster.wait_nodes(HOSTS)

    yield lambda **settings: write(json.dumps({**json.loads(before), "move": settings}))
    write(before)


def test_a_limited_move_says_how_far_it_is(cluster, dataset, moves_with):
    moves_with(**{"bandwidth-limit": "8MiB"})
    fill(volume(cluster, "h1", dataset), big=48 * MIB)
    before = digest(volume(cluster, "h1", dataset))
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    seen = []

    def known():
        transfer = state(cluster, dataset)["transfer"]
        if transfer and transfer["progress"]["bytes_per_second"]:
            seen.append(transfer)
        return len(seen) >= 2 and seen[-1]["bytes_sent"] > seen[0]["bytes_sent"]

    wait_until(known, "progress", 20, 0.2)
    for transfer in seen:
        assert 2 * MIB < transfer["progress"]["bytes_per_second"] < 16 * MIB
        assert 40 * MIB < transfer["bytes_total"] < 100 * MIB
        assert 0 < transfer["progress"]["fraction"] < 1
        assert transfer["progress"]["seconds_left"] <= 30
    wait_settled(cluster, dataset, "h2", ["h1"])
    assert digest(volume(cluster, "h2", dataset)) == before
    assert state(cluster, dataset)["transfer"] is None


def test_a_copy_is_compared_before_the_hand_off(cluster, dataset, moves_with):
    moves_with(verify="always")
    fill(volume(cluster, "h1", dataset))
    start_pausing(cluster, "h1", "before-verify")
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_paused(cluster, "h1")
    wait_reason(cluster, dataset, "copying")
    told = {n["uuid"]: n["reason"] for n in state(cluster, dataset)["nodes"]}
    assert told[cluster.node("h1")]["text"] == "the copy is being compared with the source"
    assert state(cluster, dataset)["node"] == cluster.node("h1")
    with open(volume(cluster, "h1", dataset, "later"), "wb") as f:  # goes in the increments after it
        f.write(os.urandom(MIB))
    before = digest(volume(cluster, "h1", dataset))
    go_on(cluster, "h1")
    wait_settled(cluster, dataset, "h2", ["h1"])
    assert digest(volume(cluster, "h2", dataset)) == before


def flip_a_byte(path, name):
    """As bad memory or a bad disk would: the snapshot stays the same to the file system."""
    root = os.open(path, os.O_RDONLY)
    fcntl.ioctl(root, SUBVOL_SETFLAGS, struct.pack("Q", 0))
    times = os.stat(name, dir_fd=root)
    fd = os.open(name, os.O_RDWR, dir_fd=root)
    byte = os.pread(fd, 1, 1000)
    os.pwrite(fd, bytes([byte[0] ^ 1]), 1000)
    os.close(fd)
    os.utime(name, ns=(times.st_atime_ns, times.st_mtime_ns), dir_fd=root)
    fcntl.ioctl(root, SUBVOL_SETFLAGS, struct.pack("Q", SUBVOL_RDONLY))
    os.close(root)


def test_a_copy_that_differs_is_made_again(cluster, dataset, moves_with):
    moves_with(verify="always")
    fill(volume(cluster, "h1", dataset))
    before = digest(volume(cluster, "h1", dataset))
    start_pausing(cluster, "h1", "before-verify")
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_paused(cluster, "h1")
    copies = inside(cluster, "h2", POOL, dataset, "snap")
    for snapshot in os.listdir(copies):
        flip_a_byte(os.path.join(copies, snapshot), "big")
    size = os.path.getsize(cluster.path("h1", "log", "agent"))
    go_on(cluster, "h1")
    wait_settled(cluster, dataset, "h2", ["h1"])
    assert digest(volume(cluster, "h2", dataset)) == before
    with open(cluster.path("h1", "log", "agent"), encoding="utf-8") as f:
        f.seek(size)
        assert f.read().count("the copy there is not the same") == 1
