"""Hosts that lose their network, their power or a part of their software; strangers on a dataset; many datasets at once."""

import os
import subprocess
import sys
import time

import pytest

from lab import CLUSTER as LAB
from lab import holds, wait_until
from test_crashes import go_on, start_pausing, wait_paused
from volumes import (Guard, create, delete, digest, fill, host_pid, inside, is_mounted, pool, state, volume, wait_reason,
                     wait_settled)

CLUSTER = {"nodes": 3}
HOSTS = ["h1", "h2", "h3"]


@pytest.fixture(name="dataset")
def dataset_fixture(cluster):
    dataset = create(cluster, "h1")
    fill(volume(cluster, "h1", dataset))
    yield dataset
    for host in HOSTS:
        cluster.heal(host)
        cluster.start(host)
        go_on(cluster, host)
    delete(cluster, dataset, HOSTS)


def boot_id(cluster, host):
    return cluster.run(host, "cat", "/proc/sys/kernel/random/boot_id").strip()


# --- partitions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["before-send", "after-release"])
def test_source_is_cut_off_during_a_move(cluster, dataset, at):
    before = digest(volume(cluster, "h1", dataset))
    start_pausing(cluster, "h1", at)
    with Guard(cluster, dataset, HOSTS):
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_paused(cluster, "h1")
        cluster.partition("h1")
        go_on(cluster, "h1")
        holds(lambda: state(cluster, dataset)["owner"] == cluster.node("h1") and
              not is_mounted(cluster, "h2", dataset), "nobody gets the data of a silent owner", 2.0)
        assert is_mounted(cluster, "h1", dataset) == (at == "before-send")
        cluster.heal("h1")
        wait_settled(cluster, dataset, "h2", ["h1", "h3"], 60)
    assert digest(volume(cluster, "h2", dataset)) == before


def test_nobody_takes_over_from_a_silent_owner(cluster, dataset):
    before = digest(volume(cluster, "h1", dataset))
    with Guard(cluster, dataset, HOSTS):
        cluster.kill("h1", "agent")
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        assert cluster.node("h1") in wait_reason(cluster, dataset, "owner-disconnected")
        holds(lambda: is_mounted(cluster, "h1", dataset) and not is_mounted(cluster, "h2", dataset), "it stays", 1.0)
        cluster.start("h1", "agent")
        wait_settled(cluster, dataset, "h2", ["h1", "h3"])
    assert digest(volume(cluster, "h2", dataset)) == before


# --- power -------------------------------------------------------------------------------------------------------------


def test_dead_host_finds_its_data(cluster, dataset):
    before = digest(volume(cluster, "h1", dataset))
    boot = boot_id(cluster, "h1")
    cluster.kill("h1")
    cluster.kill("control", "control")
    cluster.start("h1")
    assert boot_id(cluster, "h1") != boot
    # Nothing is mounted before the control service has confirmed that it still belongs here.
    wait_until(lambda: os.path.isdir(inside(cluster, "h1", "var/lib/flocker/btrfs-pool/flocker")), "the pool", 20)
    holds(lambda: not is_mounted(cluster, "h1", dataset), "not mounted without confirmation", 1.0)
    cluster.start("control", "control")
    wait_settled(cluster, dataset, "h1", ["h2", "h3"])
    assert digest(volume(cluster, "h1", dataset)) == before


@pytest.mark.parametrize(("paused", "at", "victim"), [
    ("h1", "after-send", "h1"), ("h1", "after-release", "h1"), ("h1", "after-send", "h2"), ("h2", "after-promote", "h2"),
    ("h2", "before-mount", "h1")], ids=lambda v: v)
def test_host_dies_in_the_middle_of_a_move(cluster, dataset, paused, at, victim):
    before = digest(volume(cluster, "h1", dataset))
    start_pausing(cluster, paused, at)
    with Guard(cluster, dataset, HOSTS):
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_paused(cluster, paused)
        cluster.kill(victim)
        if victim != paused:
            go_on(cluster, paused)
        cluster.start(victim)
        wait_settled(cluster, dataset, "h2", ["h1", "h3"], 60)
    assert digest(volume(cluster, "h2", dataset)) == before


def test_received_means_on_disk(cluster, dataset, tmp_path):
    """When the source knows that the destination has the snapshot, a copy of the destination's disk as it is in that moment
    has it too, whole."""
    before = digest(volume(cluster, "h1", dataset))
    start_pausing(cluster, "h1", "after-send")
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_paused(cluster, "h1")
    image = tmp_path / "pool.img"
    # Reads the file, not what the loop device has not written to it yet.
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", cluster.path("h2", "pool.img"), image], check=True,
                   timeout=60)
    names = pool(cluster, "h2", dataset) - {"next"}  # which is only kept to receive on
    go_on(cluster, "h1")
    assert names == {"snap/" + next(iter(names)).rpartition("/")[2]}
    # A copy has the uuid of its original, and the kernel mounts a btrfs only once by its uuid.
    subprocess.run(["btrfstune", "-f", "-u", image], check=False, capture_output=True, timeout=120)
    top = tmp_path / "mounted"
    top.mkdir()
    script = (f"mount -t btrfs -o loop,ro {image} {top} && cd {os.path.dirname(os.path.realpath(__file__))} && "
              f"{sys.executable} -c 'import sys, volumes; print(volumes.digest(sys.argv[1]))' "
              f"{top}/flocker/{dataset}/{next(iter(names))}")
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-ec", script], check=False, timeout=60,
                          capture_output=True, text=True)
    assert done.stdout.strip() == before, done.stderr
    wait_settled(cluster, dataset, "h2", ["h1", "h3"])


# --- strangers -----------------------------------------------------------------------------------------------------------

STRANGERS = {
    "open file": "exec 9>>/flocker/{0}/held; while :; do echo x >&9; sleep 0.1; done",
    "working directory": "mkdir -p /flocker/{0}/dir; cd /flocker/{0}/dir; while :; do sleep 0.1; done",
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_stranger_blocks_a_move(cluster, dataset, kind):
    stranger = subprocess.Popen([LAB, "--dir", cluster.directory, "exec", "h1", "sh", "-c",
                                 "echo $$; " + STRANGERS[kind].format(dataset)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    pid = stranger.stdout.readline().strip()
    try:
        time.sleep(0.2)
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        text = wait_reason(cluster, dataset, "volume-busy")
        assert f"{pid}" in text.replace(",", " ").replace("(", " ").split(), text
        assert is_mounted(cluster, "h1", dataset)
        if kind == "open file":
            held = volume(cluster, "h1", dataset, "held")
            size = os.path.getsize(held)
            wait_until(lambda: os.path.getsize(held) > size, "the stranger writes on", 5)
    finally:
        cluster.run("h1", "kill", "-9", pid)
        stranger.wait(10)
        stranger.stdout.close()
    wait_settled(cluster, dataset, "h2", ["h1", "h3"], 40)


def test_one_stuck_dataset_delays_no_other(cluster, dataset):
    held = os.open(volume(cluster, "h1", dataset, "big"), os.O_RDONLY)
    try:
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_reason(cluster, dataset, "volume-busy")
        made = [cluster.api.create_dataset(cluster.node("h1")) for _ in range(49)]

        def attached():
            return {d["dataset_id"] for d in cluster.api.dataset_states() if "path" in d} >= set(made)
        wait_until(attached, "49 datasets", 120)
        assert state(cluster, dataset)["reason"]["code"] == "volume-busy"
    finally:
        os.close(held)
    wait_settled(cluster, dataset, "h2", ["h1", "h3"], 40)
    for one in made:
        cluster.api.delete_dataset(one)
    wait_until(lambda: not {d["dataset_id"] for d in cluster.api.dataset_states()} & set(made), "their end", 60)


def test_two_clusters_side_by_side(cluster, dataset, make_cluster):
    other = make_cluster(nodes=1)
    mine = create(other, "h1")
    assert [d["dataset_id"] for d in other.api.dataset_states()] == [mine]
    assert mine not in [d["dataset_id"] for d in cluster.api.dataset_states()]
    assert {n["uuid"] for n in other.api.nodes()} == {other.node("h1")}
    assert not set(os.listdir(volume(other, "h1", mine)))
    before = digest(volume(cluster, "h1", dataset))
    other.kill("h1")
    other.lab("down")
    os.makedirs(other.directory, exist_ok=True)
    assert is_mounted(cluster, "h1", dataset) and digest(volume(cluster, "h1", dataset)) == before
    assert host_pid(cluster, "h1")
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_settled(cluster, dataset, "h2", ["h1", "h3"])
