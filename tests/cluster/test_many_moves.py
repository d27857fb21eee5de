"""Moves of much: many datasets at once, round over three nodes, a large file that is nearly all holes, very many small files."""

import contextlib
import os
import random
import time

import pytest

from conftest import FULL
from volumes import (Guard, MemoryPeak, create, delete, digest, fill, fill_odd, holes_are_told, is_mounted, volume,
                     wait_deleted, wait_settled)

CLUSTER = {"nodes": 3, "backend": ["btrfs", "zfs"]}
# Half a million calls by FUSE would take minutes and tell nothing of ZFS.
ONLY = {"zfs": ["test_many_datasets_at_once", "test_round_over_three_nodes", "test_holes_stay_holes"]}
LONG = True
HOSTS = ["h1", "h2", "h3"]
MIB = 1 << 20
EACH_WAY = {"btrfs": 10, "zfs": 10 if FULL else 3}  # datasets that move at once
SMALL_FILES = 1000000 if FULL else 100000
FOLDER = 250  # small files in one
MEMORY = 32 * MIB  # private dirty, of an agent


def move(cluster, dataset, source, target, timeout=300 if FULL else 60):
    with Guard(cluster, dataset, HOSTS):
        cluster.api.move_dataset(dataset, cluster.node(target))
        wait_settled(cluster, dataset, target, [h for h in HOSTS if h != target], timeout)
    assert not is_mounted(cluster, source, dataset)


# --- many at once ----------------------------------------------------------------------------------------------------


class Crowd:
    """Datasets on two hosts that change places, all at the same time."""

    def __init__(self, cluster, big):
        self.cluster = cluster
        self.at = {dataset: host for host in ("h1", "h2") for dataset in self.make(host)}
        self.before = {}
        for number, (dataset, host) in enumerate(self.at.items()):
            cluster.wait_mounted(dataset, host)
            fill(volume(cluster, host, dataset), files=10 + 5 * number, big=big + number * 4096)
            self.before[dataset] = digest(volume(cluster, host, dataset), exact=True)
        assert len(set(self.before.values())) == len(self.before)

    def make(self, host):
        return [self.cluster.api.create_dataset(self.cluster.node(host)) for _ in range(EACH_WAY[self.cluster.backend])]

    def change_places(self, timeout):
        began = time.monotonic()
        self.at = {dataset: "h2" if host == "h1" else "h1" for dataset, host in self.at.items()}
        with contextlib.ExitStack() as guards:
            for dataset in self.at:
                guard = Guard(self.cluster, dataset, HOSTS)
                guard.interval = 0.1  # there are many
                guards.enter_context(guard)
            for dataset, host in self.at.items():
                self.cluster.api.move_dataset(dataset, self.cluster.node(host))
            for dataset, host in self.at.items():
                wait_settled(self.cluster, dataset, host, [h for h in HOSTS if h != host], timeout)
        print(f"{len(self.at)} moves at once: {time.monotonic() - began:.1f} s")
        assert {d: digest(volume(self.cluster, host, d), exact=True) for d, host in self.at.items()} == self.before

    def remove(self):
        for dataset in self.at:
            self.cluster.api.delete_dataset(dataset)
        for dataset in self.at:
            wait_deleted(self.cluster, dataset, HOSTS)


def test_many_datasets_at_once(cluster):
    crowd = Crowd(cluster, big=32 * MIB if FULL else MIB)
    for _ in range(4 if FULL else 1):
        crowd.change_places(timeout=600 if FULL else 150)
    crowd.remove()


# --- round -----------------------------------------------------------------------------------------------------------


def write_more(top, lap):
    """Something new, something changed, something gone."""
    with open(os.path.join(top, f"lap-{lap}"), "wb") as f:
        f.write(os.urandom(300000 + lap))
    with open(os.path.join(top, "big"), "r+b") as f:
        f.seek(100000 * lap)
        f.write(os.urandom(70000))
    os.unlink(os.path.join(top, "d1", "e1", f"f{1 + 15 * lap}"))
    os.rename(os.path.join(top, "d2"), os.path.join(top, f"d2-{lap}"))
    os.mkdir(os.path.join(top, "d2"))
    os.rename(os.path.join(top, f"d2-{lap}"), os.path.join(top, "d2", f"d2-{lap}"))


def test_round_over_three_nodes(cluster):
    dataset = create(cluster, "h1", maximum_size=256 * MIB)
    fill(volume(cluster, "h1", dataset), big=4 * MIB)
    fill_odd(cluster, volume(cluster, "h1", dataset))
    at = "h1"
    for lap, target in enumerate(["h2", "h3", "h1"] * (4 if FULL else 1)):
        if lap < 3:
            write_more(volume(cluster, at, dataset), lap)
        before = digest(volume(cluster, at, dataset), exact=True)
        move(cluster, dataset, at, target)
        assert digest(volume(cluster, target, dataset), exact=True) == before, f"{at} to {target}"
        at = target
    delete(cluster, dataset, HOSTS)


# --- holes -----------------------------------------------------------------------------------------------------------


PIECES = 150  # of data in the large file
PIECE = 64 << 10


def write_with_holes(path, size):
    rng = random.Random(PIECES)
    with open(path, "wb") as f:
        f.truncate(size)
        for at in rng.sample(range(1, size // PIECE - 1), PIECES):
            f.seek(at * PIECE)
            f.write(rng.randbytes(PIECE))


def test_holes_stay_holes(cluster):
    size = (10 << 30) if holes_are_told(cluster) else (256 << 20)  # else all of it is read to compare
    dataset = create(cluster, "h1")
    write_with_holes(volume(cluster, "h1", dataset, "large"), size)
    before = digest(volume(cluster, "h1", dataset), exact=True)
    for source, target in (("h1", "h2"), ("h2", "h1")):
        move(cluster, dataset, source, target)
        large = os.stat(volume(cluster, target, dataset, "large"))
        assert large.st_size == size
        # ZFS has records of 128 KiB, and blocks that point to them.
        assert 1 <= large.st_blocks * 512 / (PIECES * PIECE) < (1.05 if cluster.backend == "btrfs" else 2.2)
        assert digest(volume(cluster, target, dataset), exact=True) == before
    delete(cluster, dataset, HOSTS)


# --- small files -----------------------------------------------------------------------------------------------------


def write_small_file(folder, i, block):
    size = (i * 7919) % (300 if i % 4 else 9000)
    fd = os.open(os.path.join(folder, f"{i:x}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 | i % 0o177)
    os.write(fd, block[i % 100000:i % 100000 + size])
    if i % 7 == 0:
        os.setxattr(fd, "user.number", str(i).encode())
    if i % 11 == 0:
        os.fchown(fd, i % 1000, i % 77)
    os.close(fd)


def write_small_files(top, count):
    """Names of one file in different folders, attributes, links; folders that are younger than what is in them, which makes a
    stream build them elsewhere first."""
    block = os.urandom(200000)
    for number in range(count // FOLDER):
        folder, above = os.path.join(top, f"made-{number}"), os.path.join(top, f"{number % 40}", f"above-{number}")
        os.mkdir(folder)
        for i in range(number * FOLDER, (number + 1) * FOLDER):
            write_small_file(folder, i, block)
        last = os.path.join(folder, f"{i:x}")
        for link in range(5):
            os.link(last, os.path.join(top, f"link-{number}-{link}"))
        os.symlink(f"../{number}", os.path.join(folder, "symlink"))
        os.makedirs(above)
        os.rename(folder, os.path.join(above, "in"))


@pytest.mark.deadline(1800 if FULL else 600)
def test_very_many_small_files(cluster):
    dataset = create(cluster, "h1")
    write_small_files(volume(cluster, "h1", dataset), SMALL_FILES)
    os.sync()
    before = digest(volume(cluster, "h1", dataset), exact=True)
    began = time.monotonic()
    with MemoryPeak([cluster.process_pid(host, "agent") for host in ("h1", "h2")]) as peak:
        move(cluster, dataset, "h1", "h2", timeout=6000 if FULL else 300)
    took = time.monotonic() - began
    print(f"{SMALL_FILES} files: {took:.1f} s, {SMALL_FILES / took:.0f} a second, {peak.most / MIB:.1f} MiB private dirty at most")
    assert peak.most <= MEMORY
    assert digest(volume(cluster, "h2", dataset), exact=True) == before
    delete(cluster, dataset, HOSTS)
