"""Many moves, several at once, each interrupted in the middle at a moment of chance: every byte is the same after each.

What to do, to whom and when comes from one seed, which is printed; FLOCKER_TEST_SEED repeats it.
"""

import contextlib
import errno
import os
import random
import time

import pytest

from conftest import FULL
from lab import WaitTimeout, wait_until
from volumes import (ZFS_TOP, Guard, create, delete, digest, fill, fill_odd, inside, is_mounted, state, volume,
                     wait_settled)

CLUSTER = {"nodes": 3, "backend": ["btrfs", "zfs"]}
LONG = True
HOSTS = ["h1", "h2", "h3"]
AT_ONCE = {"btrfs": 4, "zfs": 2}  # datasets that move together: each round interrupts so many moves
MOVES = {"btrfs": 1000 if FULL else 100, "zfs": 100 if FULL else 11}
RATE = "120mbit"  # of each host's link, so that there is a middle
SEED = int(os.environ.get("FLOCKER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


class Moves:
    """Some datasets on one of the hosts."""

    def __init__(self, cluster, rng):
        self.cluster, self.rng = cluster, rng
        self.at = "h1"
        # On btrfs those without a limit leave replicas behind, on ZFS all.
        self.datasets = [create(cluster, self.at, **({} if i % 2 else {"maximum_size": 64 << 20}))
                         for i in range(AT_ONCE[cluster.backend])]
        for dataset in self.datasets:
            fill(volume(cluster, self.at, dataset), big=4 << 20)
            fill_odd(cluster, volume(cluster, self.at, dataset))
        self.before = self.digests()

    def digests(self):
        return [digest(volume(self.cluster, self.at, dataset), exact=True) for dataset in self.datasets]

    def change(self):
        """Each round ships something new."""
        for dataset in self.datasets:
            top = volume(self.cluster, self.at, dataset)
            # What was over the limit a moment ago counts until the file system has cleaned up.
            wait_until(lambda t=top: self.write(t), "room below the limit", 60, 0.5)
        self.before = self.digests()

    def write(self, top):
        try:
            with open(os.path.join(top, f"round-{self.rng.randrange(8)}"), "wb") as f:
                f.write(self.rng.randbytes(1 << 20))
            with open(os.path.join(top, "big"), "r+b") as f:
                f.seek(self.rng.randrange(3 << 20))
                f.write(self.rng.randbytes(1 << 16))
        except OSError as e:
            if e.errno == errno.EDQUOT:
                os.sync()
            raise
        return True

    def begin(self, target):
        for dataset in self.datasets:
            self.cluster.api.move_dataset(dataset, self.cluster.node(target))

    def under_way(self, target):
        """How many have not arrived."""
        return sum(not is_mounted(self.cluster, target, dataset) for dataset in self.datasets)

    def settle(self, target, timeout=90):
        for dataset in self.datasets:
            wait_settled(self.cluster, dataset, target, [h for h in HOSTS if h != target], timeout)
        self.at = target
        assert self.digests() == self.before


# --- interruptions: each returns the host where the datasets must be in the end ----------------------------------------


def cut(moves, source, target):
    victim = moves.rng.choice([source, target])
    moves.cluster.partition(victim)
    time.sleep(moves.rng.uniform(0.1, 0.6))
    moves.cluster.heal(victim)
    return target


def reset_streams(moves, source, target):
    """Every connection to the mover is broken, and refused for a moment."""
    rule = ["INPUT", "-p", "tcp", "--dport", "4525", "-j", "REJECT", "--reject-with", "tcp-reset"]
    moves.cluster.run(target, "iptables", "-w", "-I", *rule)
    time.sleep(moves.rng.uniform(0, 0.3))
    moves.cluster.run(target, "iptables", "-w", "-D", *rule)
    return target


def kill_process(host, process):
    def kill(moves, source, target):
        name = {"source": source, "target": target}.get(host, host)
        moves.cluster.kill(name, process)
        time.sleep(moves.rng.uniform(0, 0.3))
        moves.cluster.start(name, process)
        return target
    return kill


def kill_both(moves, source, target):
    for host in (source, target):
        moves.cluster.kill(host, "agent")
    for host in (source, target):
        moves.cluster.start(host, "agent")
    return target


def cancel(moves, source, target):
    moves.begin(source)
    return source


def retarget(moves, source, target):
    third = next(h for h in HOSTS if h not in (source, target))
    moves.begin(third)
    return third


def fill_pool(moves, source, target):
    """The destination has no room for a while."""
    file = inside(moves.cluster, target, "/var/lib/flocker/btrfs-pool/stuffing")
    place = os.statvfs(os.path.dirname(file))
    with open(file, "wb") as f:
        room = place.f_bavail * place.f_frsize
        for part in (room - (2 << 20), room // 2):
            try:
                os.posix_fallocate(f.fileno(), 0, part)
                break
            except OSError:
                pass
    time.sleep(moves.rng.uniform(0.3, 0.8))
    os.unlink(file)
    return target


def lower_quota(moves, source, target):
    """The same on ZFS, which frees too slowly what was deleted. A quota below what is used is refused, and that grows."""
    moves.cluster.shell(target, f"for i in $(seq 20); do zfs set quota=$(($(zfs get -Hp -o value used {ZFS_TOP}) + 500000)) {ZFS_TOP} && "
                                "exit; done; exit 1")
    time.sleep(moves.rng.uniform(0.3, 0.8))
    moves.cluster.run(target, "zfs", "set", "quota=none", ZFS_TOP)
    return target


def over_the_limit(moves, source, target):
    """One volume is filled up to its limit, and emptied again."""
    file = volume(moves.cluster, source, moves.datasets[0], "too-much")
    try:
        with open(file, "wb", buffering=0) as f:
            while f.write(os.urandom(1 << 20)):
                pass
    except OSError as e:  # it has moved already, or it is full
        assert e.errno in (errno.EDQUOT, errno.ENOENT, errno.ENOSPC), e
    for host in HOSTS:
        try:
            os.unlink(volume(moves.cluster, host, moves.datasets[0], "too-much"))
        except FileNotFoundError:
            pass
    return target


def pool_away(moves, source, target):
    """The destination dies and comes back without its pool, later with it."""
    pool = moves.cluster.path(target, "pool.img")
    moves.cluster.kill(target)
    os.rename(pool, pool + ".away")
    moves.cluster.start(target)
    time.sleep(moves.rng.uniform(0.2, 0.6))
    os.rename(pool + ".away", pool)
    return target


def target_dies(moves, source, target):
    moves.cluster.kill(target)
    time.sleep(moves.rng.uniform(0, 0.3))
    moves.cluster.start(target)
    return target


ANYWHERE = {
    "cut": cut, "reset": reset_streams, "kill-source": kill_process("source", "agent"),
    "kill-target": kill_process("target", "agent"), "kill-control": kill_process("control", "control"), "kill-both": kill_both,
    "cancel": cancel, "retarget": retarget, "limit": over_the_limit,
}
KINDS = {
    "btrfs": {**ANYWHERE, "full": fill_pool, "pool-away": pool_away},
    "zfs": {**ANYWHERE, "full": lower_quota, "target-dies": target_dies},
}
REBOOTS = ("pool-away", "target-dies")  # what slowed the link down dies with the host


def slow_down(cluster, host):
    cluster.run(host, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", RATE, "burst", "64k", "latency", "100ms")


@pytest.fixture(name="slow_links")
def _slow_links(cluster):
    for host in HOSTS:
        slow_down(cluster, host)
    yield
    for host in HOSTS:
        cluster.run(host, "tc", "qdisc", "del", "dev", "eth0", "root", check=False)


def one_round(moves, kind, interrupt):
    """How many moves were interrupted."""
    source, target = moves.at, moves.rng.choice([h for h in HOSTS if h != moves.at])
    moves.change()
    moves.begin(target)
    time.sleep(moves.rng.choice([0.1, 0.5, 1.2]) * moves.rng.random())
    count = moves.under_way(target)
    began = time.monotonic()
    try:
        where = interrupt(moves, source, target)
        if kind in REBOOTS:
            slow_down(moves.cluster, target)
        moves.settle(where)
    except (AssertionError, WaitTimeout) as e:
        raise AssertionError(f"{kind}, {source} to {target}, FLOCKER_TEST_SEED={SEED}: {e}") from e
    print(f"{kind} {source} to {target}, {count} under way: {time.monotonic() - began:.1f} s")
    return count


@pytest.mark.deadline(7200 if FULL else 900)
def test_interrupted_moves(cluster, slow_links):
    print(f"FLOCKER_TEST_SEED={SEED}")
    moves = Moves(cluster, random.Random(SEED))
    kinds, wanted = KINDS[cluster.backend], MOVES[cluster.backend]
    interrupted = dict.fromkeys(kinds, 0)
    with contextlib.ExitStack() as stack:
        for dataset in moves.datasets:
            stack.enter_context(Guard(cluster, dataset, HOSTS))
        for number in range(max(wanted, 4 * len(kinds))):
            # Moving back to a replica may be over before it is interrupted: those kinds come again first.
            missed = [k for k in kinds if not interrupted[k]] if number >= len(kinds) else []
            kind = missed[0] if missed else list(kinds)[number % len(kinds)]
            interrupted[kind] += one_round(moves, kind, kinds[kind])
            if sum(interrupted.values()) >= wanted and all(interrupted.values()):
                break
    print(f"{sum(interrupted.values())} interrupted moves: {interrupted}")
    assert sum(interrupted.values()) >= wanted, "the moves are over before they are interrupted"
    assert all(interrupted.values()), interrupted
    wait_until(lambda: all(state(cluster, d)["reason"] is None for d in moves.datasets), "no reasons left")
    for dataset in moves.datasets:
        delete(cluster, dataset, HOSTS)
