"""Datasets on an XtremIO array (tests/arrays/xtremio.py) that real agents use over HTTPS: a database moves between hosts, volumes through crashes and trouble
of the array."""

import pytest

from arrays import array, move_database, owners
from lab import wait_until
from volumes import Guard, create, is_mounted, state, wait_settled

CLUSTER = {"nodes": 2, "backend": "xtremio", "docker": True, "images": ["postgres"]}
HOSTS = ["h1", "h2"]
SIZE = 256 << 20


def test_array_busy(cluster):
    """What is mounted stays; a move waits, and says for what."""
    dataset = create(cluster, "h1", maximum_size=SIZE)
    array(cluster, faults=[{"how": "error", "status": 503, "times": 1 << 30}])
    try:
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_until(lambda: "the array says" in (state(cluster, dataset)["reason"] or {}).get("text", ""), "a reason", 60)
        assert not is_mounted(cluster, "h2", dataset)
    finally:
        array(cluster, faults=[])
    with Guard(cluster, dataset, HOSTS):
        wait_settled(cluster, dataset, "h2", ["h1"], 60)
    assert owners(cluster) == [["h2"]]
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
    assert array(cluster)["violations"] == []


@pytest.mark.deadline(300)
def test_database_moves(cluster):
    move_database(cluster, SIZE)
    assert array(cluster)["violations"] == []


def test_agent_dies(cluster):
    """kill -9 of both agents while the volume is on its way."""
    dataset = create(cluster, "h1", maximum_size=SIZE)
    cluster.shell("h1", f"echo precious >/flocker/{dataset}/file; sync /flocker/{dataset}/file")
    for source, target in (("h1", "h2"), ("h2", "h1")):
        actions = ("DELETE lun-maps", "POST lun-maps")
        array(cluster, forget_calls=True, faults=[{"action": a, "how": "late", "seconds": 0.7} for a in actions])
        with Guard(cluster, dataset, HOSTS):
            cluster.api.move_dataset(dataset, cluster.node(target))
            for host, action in zip((source, target), actions):
                wait_until(lambda a=action: array(cluster)["calls"].get(a), f"call {action}", 30, 0.02)
                cluster.kill(host, "agent")
                cluster.start(host, "agent")
            wait_settled(cluster, dataset, target, [source], 60)
        assert cluster.shell(target, f"cat /flocker/{dataset}/file").strip() == "precious"
        assert owners(cluster) == [[target]]
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
    # What a killed agent had asked for is done late: the next one may have looked for the device already, which made paths.
    assert [v for v in array(cluster)["violations"] if "was unmapped while" not in v] == []
    array(cluster, forget_violations=True)
