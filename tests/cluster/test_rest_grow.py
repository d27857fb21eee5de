"""A dataset grows while it is mounted, and while it moves; storage that cannot grow says so before anything is promised."""

import pytest

from lab import wait_until

CLUSTER = {"nodes": 2, "backend": ["btrfs", "loopback"]}
MIB = 1 << 20


def size_of(cluster, one):
    return next((d.get("maximum_size") for d in cluster.api.expect("GET", "/v1/state/datasets") if d["dataset_id"] == one), None)


def write(cluster, host, one, name, mib):
    return "no room" not in cluster.shell(
        host, f"dd if=/dev/urandom of=/flocker/{one}/{name} bs=1M count={mib} conv=fsync 2>/dev/null || echo no room")


def update(cluster, one, **body):
    return cluster.api.call("POST", f"/v1/configuration/datasets/{one}", body)


def test_grow(cluster):
    one = cluster.api.create_dataset(cluster.node("h1"), maximum_size=64 * MIB)
    cluster.wait_mounted(one, "h1")
    if cluster.backend == "loopback":
        answer = update(cluster, one, maximum_size=128 * MIB)
        assert answer.status == 409 and "cannot make a volume larger" in answer.json()["description"], answer.body
        assert update(cluster, one).json()["maximum_size"] == 64 * MIB
        return
    assert size_of(cluster, one) == 64 * MIB
    assert write(cluster, "h1", one, "a", 40) and not write(cluster, "h1", one, "b", 60)
    cluster.run("h1", "rm", f"/flocker/{one}/b")
    assert update(cluster, one, maximum_size=192 * MIB).json()["maximum_size"] == 192 * MIB
    wait_until(lambda: size_of(cluster, one) == 192 * MIB, "it has grown")
    assert write(cluster, "h1", one, "b", 60)
    # Grown and moved in one: the new node makes it as large.
    assert update(cluster, one, maximum_size=256 * MIB, primary=cluster.node("h2"), metadata={"name": "big"}).status == 200
    cluster.wait_mounted(one, "h2")
    wait_until(lambda: size_of(cluster, one) == 256 * MIB, "it is as large there")
    assert write(cluster, "h2", one, "c", 100) and not write(cluster, "h2", one, "d", 100)
    detail = cluster.api.expect("GET", f"/v1/state/datasets/{one}")
    assert detail["reason"] is None
    assert [n["size"] for n in detail["nodes"] if n["uuid"] == detail["node"]] == [256 * MIB]


def test_grow_while_the_node_is_away(cluster):
    if cluster.backend != "btrfs":
        pytest.skip("only btrfs can grow a volume")
    one = cluster.api.create_dataset(cluster.node("h1"), maximum_size=64 * MIB)
    cluster.wait_mounted(one, "h1")
    cluster.stop("h1", "agent")
    assert update(cluster, one, maximum_size=128 * MIB).status == 200
    cluster.start("h1", "agent")
    wait_until(lambda: size_of(cluster, one) == 128 * MIB, "it has grown")
