"""kill -9 of the source's agent, the destination's agent or the control service at each named step of a hand-off.

The agent with the step is started with FLOCKER_TEST_PAUSE_AT: it stops right before or after that step and waits. Then
somebody dies and is started again, and the move must end as if nothing had been.
"""

import os

import pytest

from conftest import FULL
from lab import wait_until
from volumes import Guard, Writer, create, delete, digest, fill, volume, wait_settled

CLUSTER = {"nodes": 3}
HOSTS = ["h1", "h2", "h3"]
SOURCE, DESTINATION, THIRD = HOSTS
PAUSE = "pause"

# `forbid` ends the announcement when the destination becomes the owner; `observe` is its look at what the mover received.
STEPS = [(SOURCE, when, step) for step in ("snapshot", "send", "release", "send-final", "drop")
         for when in ("before", "after")]
STEPS += [(DESTINATION, when, step) for step in ("observe", "forbid", "promote", "mount", "prune")
          for when in ("before", "after")]
VICTIMS = ("source", "destination", "control")
# What runs without FLOCKER_TEST_FULL: each step, each victim, both sides of the steps that cannot be undone.
USUAL = {
    "after-snapshot-source", "before-send-control", "after-send-destination", "before-release-source",
    "after-release-source", "after-release-control", "before-send-final-destination", "after-send-final-source",
    "before-drop-control", "after-drop-source", "after-observe-destination", "before-forbid-control",
    "before-promote-destination", "after-promote-destination", "after-promote-control", "before-mount-source",
    "after-mount-destination", "after-prune-destination",
}


def cases():
    every = [(host, when, step, victim) for host, when, step in STEPS for victim in VICTIMS]
    names = {case: f"{case[1]}-{case[2]}-{case[3]}" for case in every}
    assert USUAL <= set(names.values())
    return [pytest.param(*case, id=names[case]) for case in every if FULL or names[case] in USUAL]


def pause_file(cluster, host):
    return cluster.path(host, "run", PAUSE)


def start_pausing(cluster, host, at):
    """Starts the host's agent anew, so that it will pause at a step; waits until it takes orders."""
    cluster.kill(host, "agent")
    size = os.path.getsize(cluster.path(host, "log", "agent"))
    cluster.start(host, "agent", FLOCKER_TEST_PAUSE_AT=f"{at}:/run/{PAUSE}")

    def greeted():
        with open(cluster.path(host, "log", "agent"), "rb") as f:
            f.seek(size)
            return b"session with the control service" in f.read()
    wait_until(greeted, f"{host} connected", 20, 0.05)
    assert not os.path.exists(pause_file(cluster, host)), "it paused before the move"


def wait_paused(cluster, host, timeout=20):
    wait_until(lambda: os.path.exists(pause_file(cluster, host)), f"the step to pause at on {host}", timeout, 0.01)


def go_on(cluster, host):
    try:
        os.unlink(pause_file(cluster, host))
    except FileNotFoundError:
        pass


def kill_and_start(cluster, victim):
    host, process = {"source": (SOURCE, "agent"), "destination": (DESTINATION, "agent"),
                     "control": ("control", "control")}[victim]
    cluster.kill(host, process)
    cluster.start(host, process)


@pytest.fixture(name="dataset")
def dataset_fixture(cluster):
    """A dataset with content on the source; gone without a trace afterwards."""
    dataset = create(cluster, SOURCE, maximum_size=1 << 30)
    fill(volume(cluster, SOURCE, dataset))
    yield dataset
    for host in HOSTS:
        go_on(cluster, host)
        cluster.start(host)
    cluster.start("control")
    delete(cluster, dataset, HOSTS)


@pytest.mark.deadline(60)
@pytest.mark.parametrize(("paused", "when", "step", "victim"), cases())
def test_kill_at_a_step(cluster, dataset, paused, when, step, victim):
    before = digest(volume(cluster, SOURCE, dataset))
    start_pausing(cluster, paused, f"{when}-{step}")
    with Guard(cluster, dataset, HOSTS) as guard, Writer(cluster, dataset, HOSTS) as writer:
        wait_until(lambda: writer.acknowledged, "the first acknowledged line", 10)
        cluster.api.move_dataset(dataset, cluster.node(DESTINATION))
        wait_paused(cluster, paused)
        kill_and_start(cluster, victim)
        go_on(cluster, paused)
        wait_settled(cluster, dataset, DESTINATION, [SOURCE, THIRD])
        sofar = writer.acknowledged
        wait_until(lambda: writer.acknowledged > sofar, "lines written at the destination", 10)
    assert guard.looks > 20
    assert writer.places == [SOURCE, DESTINATION]
    writer.check(DESTINATION)
    assert digest(volume(cluster, DESTINATION, dataset)) == before


@pytest.mark.deadline(60)
@pytest.mark.parametrize("target", [SOURCE, THIRD], ids=["cancel", "retarget"])
@pytest.mark.parametrize("at", ["before-send", "after-send", "before-release", "after-release", "before-send-final",
                                "after-send-final"])
def test_other_wish_in_the_middle(cluster, dataset, at, target):
    before = digest(volume(cluster, SOURCE, dataset))
    start_pausing(cluster, SOURCE, at)
    with Guard(cluster, dataset, HOSTS), Writer(cluster, dataset, HOSTS) as writer:
        wait_until(lambda: writer.acknowledged, "the first acknowledged line", 10)
        cluster.api.move_dataset(dataset, cluster.node(DESTINATION))
        wait_paused(cluster, SOURCE)
        cluster.api.move_dataset(dataset, cluster.node(target))
        go_on(cluster, SOURCE)
        wait_settled(cluster, dataset, target, [h for h in HOSTS if h != target])
        sofar = writer.acknowledged
        wait_until(lambda: writer.acknowledged > sofar, f"lines written on {target}", 10)
    # From after-send-final on the destination may have been granted it before the new wish came.
    assert writer.places[-1] == target
    writer.check(target)
    assert digest(volume(cluster, target, dataset)) == before
