"""Datasets on a PowerFlex system (tests/arrays/powerflex.py) that real agents use over HTTPS: a database moves between hosts, volumes move through
crashes and trouble of the gateway."""

import pytest

from arrays import array, move_database, owners
from lab import wait_until
from volumes import Guard, create, digest, fill, is_mounted, state, volume, wait_settled

CLUSTER = {"nodes": 2, "backend": "powerflex", "docker": True, "images": ["postgres"]}
HOSTS = ["h1", "h2"]
SIZE = 8 << 30


def test_gateway_down(cluster):
    """A move waits, says for what, and goes on."""
    dataset = create(cluster, "h1", maximum_size=SIZE)
    array(cluster, faults=[{"how": "error", "status": 503, "times": 1 << 30}])
    try:
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_until(lambda: "PowerFlex says" in (state(cluster, dataset)["reason"] or {}).get("text", ""), "a reason", 40)
        assert not is_mounted(cluster, "h2", dataset)
    finally:
        array(cluster, faults=[])
    with Guard(cluster, dataset, HOSTS):
        wait_settled(cluster, dataset, "h2", ["h1"], 60)
    assert owners(cluster) == [["h2"]]
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)


@pytest.mark.deadline(300)
def test_database_moves(cluster):
    move_database(cluster, SIZE)


def test_agent_dies(cluster):
    """kill -9 of both agents while the volume is on its way."""
    dataset = create(cluster, "h1", maximum_size=SIZE)
    cluster.shell("h1", f"echo precious >/flocker/{dataset}/file; sync /flocker/{dataset}/file")
    for source, target in (("h1", "h2"), ("h2", "h1")):
        before = array(cluster, forget_calls=True, faults=[{"action": a, "how": "late", "seconds": 0.7} for a in ("unmap", "map")])
        assert len(before["volumes"]) == 1
        with Guard(cluster, dataset, HOSTS):
            cluster.api.move_dataset(dataset, cluster.node(target))
            for host, action in ((source, "unmap"), (target, "map")):
                wait_until(lambda a=action: array(cluster)["calls"].get(a), f"call {action}", 30, 0.02)
                cluster.kill(host, "agent")
                cluster.start(host, "agent")
            wait_settled(cluster, dataset, target, [source], 60)
        assert cluster.shell(target, f"cat /flocker/{dataset}/file").strip() == "precious"
        assert owners(cluster) == [[target]]
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)


def test_moves(cluster):
    """There and back; the second time the gateway loses answers, and has forgotten who is logged in. No byte changes."""
    dataset = create(cluster, "h1", maximum_size=SIZE)
    fill(volume(cluster, "h1", dataset), big=16 << 20)
    before = digest(volume(cluster, "h1", dataset))
    for source, target, faults in (("h1", "h2", ()), ("h2", "h1", ("map", "unmap", "read"))):
        assert owners(cluster) == [[source]]
        if faults:
            array(cluster, forget_tokens=True, faults=[{"action": a, "how": "lost"} for a in faults])
        with Guard(cluster, dataset, HOSTS):
            cluster.api.move_dataset(dataset, cluster.node(target))
            wait_settled(cluster, dataset, target, [source])
        assert digest(volume(cluster, target, dataset)) == before
        assert owners(cluster) == [[target]]
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
    wait_until(lambda: not array(cluster)["volumes"], "volume removed", 20)
