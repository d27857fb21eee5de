"""Shared storage is listed by one agent for all: who does, what the others hear, and what they cost when nobody does anything."""

import glob
import os

import pytest

from lab import wait_until
from volumes import create

CLUSTER = {"nodes": 2, "backend": "loopback"}
HOSTS = ["h1", "h2"]
GIB = 1 << 30
LIST_S = 60  # who is named lists that long after its last list


def named(cluster, host):
    """How often it was told to list for all."""
    with open(cluster.path(host, "log", "agent"), encoding="utf-8", errors="replace") as f:
        return f.read().count("this node lists the shared storage for all others")


def restart(cluster, host, other):
    """The other one is named meanwhile, if it was not."""
    before = named(cluster, other), named(cluster, host)
    cluster.kill(host, "agent")
    cluster.wait_nodes([other], 60)
    cluster.start(host, "agent")
    cluster.wait_nodes(HOSTS)
    assert named(cluster, host) == before[1]  # it comes back, and the other one goes on
    return named(cluster, other) - before[0]


def reported(cluster, dataset):
    """The size that its node tells."""
    return (cluster.api.dataset_state(dataset) or {}).get("maximum_size")


@pytest.mark.deadline(240)
def test_another_one_lists(cluster):
    wait_until(lambda: named(cluster, "h1") + named(cluster, "h2") == 1, "one is named", 30)
    restart(cluster, "h2", "h1")  # now h1 lists
    assert restart(cluster, "h1", "h2") == 1
    restart(cluster, "h2", "h1")
    total = named(cluster, "h1") + named(cluster, "h2")
    cluster.kill("control", "control")
    cluster.start("control", "control")
    cluster.wait_nodes(HOSTS)
    wait_until(lambda: named(cluster, "h1") + named(cluster, "h2") == total + 1, "one is named by the new control service", 30)


@pytest.mark.deadline(240)
def test_the_others_hear_of_it(cluster):
    dataset = create(cluster, "h1", maximum_size=GIB)
    restart(cluster, "h2", "h1")
    restart(cluster, "h1", "h2")  # h2 lists, as it has just begun only in a minute
    cluster.wait_mounted(dataset, "h1")
    assert reported(cluster, dataset) == GIB
    old, = glob.glob(cluster.path("shared", "**", f"*{dataset}_{GIB}"), recursive=True)
    os.rename(old, old.replace(f"_{GIB}", f"_{2 * GIB}"))  # by hand, behind everybody's back
    wait_until(lambda: reported(cluster, dataset) == 2 * GIB, "h1 has heard of it", LIST_S + 30)
    cluster.wait_mounted(dataset, "h1")
    os.rename(old.replace(f"_{GIB}", f"_{2 * GIB}"), old)
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
