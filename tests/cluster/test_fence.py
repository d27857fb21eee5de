"""flockerctl fence: nodes that die, what goes on elsewhere and what does not, and nodes that come back."""

import json
import os
import time

import pytest

from database import Database
from lab import holds, wait_until
from volumes import (POOL, Guard, Writer, create, digest, fill, inside, is_mounted, pool, state, volume, wait_reason,
                     wait_settled)

CLUSTER = {"nodes": 3, "backend": ["loopback", "btrfs"]}
ONLY = {
    "loopback": ["test_shared_volume_goes_on_elsewhere", "test_says_where_it_waits", "test_not_off_at_all", "test_refused"],
    "btrfs": ["test_replica_is_promoted", "test_without_a_copy_it_stays"],
}
HOSTS = ["h1", "h2", "h3"]


def fences(cluster):
    return {f["node_uuid"]: f for f in cluster.api.expect("GET", "/v1/fences")}


def is_fenced(cluster, host):
    found = fences(cluster).get(cluster.node(host))
    return bool(found and found["fence"])


def preview(cluster, host, dataset):
    items = cluster.api.expect("GET", f"/v1/fences/{cluster.node(host)}")["datasets"]
    return next((i for i in items if i["dataset_id"] == dataset), None)


def die(cluster, host):
    """Its power is gone, and the control service has noticed."""
    cluster.kill(host)
    wait_until(lambda: cluster.node(host) in fences(cluster), f"{host} noticed to be gone", 60)


@pytest.fixture(name="dataset")
def dataset_fixture(cluster):
    dataset = create(cluster, "h1", metadata={"name": "orders"})
    fill(volume(cluster, "h1", dataset))
    yield dataset
    for host in HOSTS:
        cluster.heal(host)
        cluster.start(host)
    cluster.wait_nodes(HOSTS)
    for host in HOSTS:
        cluster.ctl("unfence", cluster.node(host))
        cluster.ctl("uncordon", cluster.node(host))
        cluster.ctl("drop-copy", dataset, cluster.node(host), check=False)
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
    wait_until(lambda: not state(cluster, dataset)["holders"], "nothing left", 60)


@pytest.mark.deadline(240)
def test_shared_volume_goes_on_elsewhere(cluster, dataset):
    before = digest(volume(cluster, "h1", dataset))
    with Guard(cluster, dataset, HOSTS):
        with Writer(cluster, dataset, ["h1"]) as writer:
            wait_until(lambda: writer.acknowledged > 50, "some rows")
        cluster.kill("h1")
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_until(lambda: cluster.node("h1") in fences(cluster), "h1 noticed to be gone", 60)
        wait_reason(cluster, dataset, "owner-disconnected")
        assert "flockerctl fence" in cluster.ctl("why", dataset)
        holds(lambda: not is_mounted(cluster, "h2", dataset), "silence is no proof", 2)
        # Without the word it only says what would be.
        asked = cluster.ctl("fence", cluster.node("h1"), check=False)
        assert "orders: its volume is attached to another node; nothing is lost" in asked
        assert not is_fenced(cluster, "h1")
        assert cluster.api.call("POST", f"/v1/fences/{cluster.node('h1')}", {}).status == 400
        assert cluster.api.call("POST", f"/v1/fences/{cluster.node('h1')}", {"confirm_off": False}).status == 400
        said = cluster.ctl("fence", "--confirm-off", "-r", "power supply burned", cluster.node("h1"))
        assert "is fenced since" in said and "signed by user" in said
        cluster.wait_mounted(dataset, "h2")
        assert digest(volume(cluster, "h2", dataset)) == before
        writer.check("h2")
        fence = fences(cluster)[cluster.node("h1")]["fence"]
        assert fence["by"].startswith("user") and fence["reason"] == "power supply burned" and abs(fence["since"] - time.time()) < 60
        assert cluster.ctl("fence", "--confirm-off", cluster.node("h1"))  # again: no effect
        assert fences(cluster)[cluster.node("h1")]["fence"] == fence
        # It lasts.
        cluster.kill("control")
        cluster.start("control")
        cluster.wait_nodes(["h2", "h3"])
        assert fences(cluster)[cluster.node("h1")]["fence"] == fence
        cluster.wait_mounted(dataset, "h2")
        # Started anew, it gives up what it had.
        cluster.start("h1")
        cluster.wait_nodes(HOSTS)
        wait_until(lambda: not is_fenced(cluster, "h1"), "the fence ends with the boot", 30)
        wait_settled(cluster, dataset, "h2", ["h1", "h3"], 60)
        assert not is_mounted(cluster, "h1", dataset)


@pytest.mark.deadline(240)
def test_says_where_it_waits(cluster, dataset):
    cluster.api.acquire_lease(dataset, cluster.node("h1"))
    die(cluster, "h1")
    cluster.ctl("fence", "--confirm-off", cluster.node("h1"))
    assert cluster.api.leases() == []
    assert cluster.api.call("POST", "/v1/configuration/leases",
                            {"dataset_id": dataset, "node_uuid": cluster.node("h1"), "expires": None}).status == 409
    text = wait_reason(cluster, dataset, "node-fenced")
    assert cluster.node("h1") in text
    why = cluster.ctl("why", dataset)
    assert "flockerctl move" in why and "flockerctl drain" in why
    holds(lambda: not any(is_mounted(cluster, h, dataset) for h in HOSTS), "nobody said where", 2)
    new = cluster.api.create_dataset(cluster.node("h1"))
    wait_reason(cluster, new, "node-fenced")
    said = cluster.ctl("drain", cluster.node("h1"))
    assert "dataset" in said
    home = next(d["primary"] for d in cluster.api.datasets() if d["dataset_id"] == dataset)
    assert home in (cluster.node("h2"), cluster.node("h3"))
    host = "h2" if home == cluster.node("h2") else "h3"
    cluster.wait_mounted(dataset, host)
    cluster.api.delete_dataset(new)
    cluster.wait_gone(new)


@pytest.mark.deadline(300)
def test_not_off_at_all(cluster, dataset):
    """The operator was wrong: the host is only cut off, and still has the volume mounted. Here the storage sees that."""
    with Guard(cluster, dataset, HOSTS) as guard:
        with Writer(cluster, dataset, ["h1"]) as writer:
            cluster.partition("h1")
            wait_until(lambda: cluster.node("h1") in fences(cluster), "h1 noticed to be gone", 90)
            cluster.ctl("fence", "--confirm-off", cluster.node("h1"))
            cluster.api.move_dataset(dataset, cluster.node("h2"))
            text = wait_reason(cluster, dataset, "storage-error", 30)
            assert "still uses the volume" in text and "h1" in text
            assert not is_mounted(cluster, "h2", dataset)
        cluster.heal("h1")
        # It must give up first, then the other one gets it.
        cluster.wait_mounted(dataset, "h2", 90)
        assert not is_mounted(cluster, "h1", dataset)
        writer.check("h2")
        assert guard.seen == {"h1", "h2"}
    # The same boot: somebody should look at it.
    wait_until(lambda: any(n["uuid"] == cluster.node("h1") and n.get("fenced") for n in cluster.api.nodes()), "h1 is here, fenced")
    assert "fenced" in cluster.ctl("list-nodes")
    cluster.ctl("unfence", cluster.address("h1"))
    assert not is_fenced(cluster, "h1")
    wait_settled(cluster, dataset, "h2", ["h1", "h3"], 60)


def test_refused(cluster):
    nobody = "11111111-2222-4333-8444-555555555555"
    node = cluster.node("h1")
    answer = cluster.api.call("POST", f"/v1/fences/{node}", {"confirm_off": True})
    assert answer.status == 409 and "it is connected" in answer.json()["description"]
    assert cluster.ctl("fence", cluster.address("h1"), check=False) == ""
    assert cluster.ctl("fence", "--confirm-off", cluster.address("h1"), check=False) == ""
    assert cluster.api.call("POST", f"/v1/fences/{nobody}", {"confirm_off": True}).status == 404
    assert cluster.api.call("GET", f"/v1/fences/{nobody}").status == 404
    assert cluster.api.call("GET", "/v1/fences/x").status == 400
    assert cluster.api.call("DELETE", f"/v1/fences/{nobody}").status == 404
    assert cluster.api.call("POST", f"/v1/fences/{node}", {"confirm_off": True, "reason": "x" * 257}).status == 400
    assert cluster.api.call("DELETE", f"/v1/copies/{nobody}?node={node}").status == 404
    assert cluster.api.call("DELETE", f"/v1/copies/{nobody}").status == 400
    assert not is_fenced(cluster, "h1")


@pytest.mark.deadline(240)
def test_replica_is_promoted(cluster, dataset):
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_settled(cluster, dataset, "h2", ["h1", "h3"], 60)
    moved = time.time()
    assert state(cluster, dataset)["replica"]["node"] == cluster.node("h1")
    before = digest(volume(cluster, "h2", dataset))
    with open(volume(cluster, "h2", dataset, "later"), "wb") as f:
        f.write(os.urandom(5000))
    os.sync()
    later = digest(volume(cluster, "h2", dataset))
    die(cluster, "h2")
    told = preview(cluster, "h2", dataset)
    assert told["outcome"] == "replica" and told["node"] == cluster.node("h1") and moved - 60 < told["as_of"] <= moved
    assert "LOST is what was written after" in cluster.ctl("fence", cluster.node("h2"), check=False)
    cluster.ctl("fence", "--confirm-off", cluster.node("h2"))
    wait_reason(cluster, dataset, "node-fenced")
    with Guard(cluster, dataset, HOSTS):
        cluster.ctl("drain", cluster.node("h2"))  # to where the copy is
        cluster.wait_mounted(dataset, "h1")
        assert digest(volume(cluster, "h1", dataset)) == before  # what was said to be lost is lost, and nothing else
        # It is back, and keeps what it had.
        cluster.start("h2")
        cluster.wait_nodes(HOSTS)
        wait_until(lambda: not is_fenced(cluster, "h2"), "the fence ends with the boot", 30)
        text = wait_reason(cluster, dataset, "copy-kept")
        assert cluster.node("h2") in text and "drop-copy" in cluster.ctl("why", dataset)
        holds(lambda: "vol" in pool(cluster, "h2", dataset) and not is_mounted(cluster, "h2", dataset), "it is kept, unused", 3)
        assert digest(inside(cluster, "h2", POOL, dataset, "vol")) == later
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        assert "only when that is dropped" in wait_reason(cluster, dataset, "copy-kept")
        cluster.api.move_dataset(dataset, cluster.node("h1"))
        with open(volume(cluster, "h1", dataset, "new"), "wb") as f:
            f.write(b"new")
        assert digest(inside(cluster, "h2", POOL, dataset, "vol")) == later
        assert "removes what it kept" in cluster.ctl("drop-copy", "orders", cluster.address("h2"))
        wait_settled(cluster, dataset, "h1", ["h2", "h3"], 60)
    assert cluster.ctl("drop-copy", dataset, cluster.node("h2"), check=False) == ""


@pytest.mark.deadline(240)
def test_without_a_copy_it_stays(cluster, dataset):
    before = digest(volume(cluster, "h1", dataset))
    die(cluster, "h1")
    assert preview(cluster, "h1", dataset)["outcome"] == "only-there"
    answer = json.loads(cluster.ctl("fence", "--confirm-off", "-o", "json", cluster.node("h1")))
    assert [d["outcome"] for d in answer["datasets"]] == ["only-there"]
    cluster.api.move_dataset(dataset, cluster.node("h3"))
    assert cluster.node("h1") in wait_reason(cluster, dataset, "data-on-fenced-node")
    holds(lambda: not any(is_mounted(cluster, h, dataset) for h in HOSTS), "nothing is made up", 3)
    with Guard(cluster, dataset, HOSTS):
        cluster.start("h1")
        wait_settled(cluster, dataset, "h3", ["h1", "h2"], 90)
    assert digest(volume(cluster, "h3", dataset)) == before
    assert not is_fenced(cluster, "h1")


@pytest.mark.deadline(400)
def test_database(make_cluster):
    """A PostgreSQL on shared storage: its host dies while it is written to, and all rows that were committed are there on the next."""
    cluster = make_cluster(nodes=2, backend="loopback", docker=True, images=["postgres"])
    dataset = create(cluster, "h1")
    db = Database(cluster, dataset, "h1")
    db.sql("h1", "create table t (n int)")
    committed = 0
    for n in range(1, 21):
        db.sql("h1", f"insert into t values ({n})")
        committed = n
    with Guard(cluster, dataset, ["h1", "h2"]):
        cluster.kill("h1")
        cluster.api.move_container("db", cluster.node("h2"))
        wait_until(lambda: cluster.node("h1") in fences(cluster), "h1 noticed to be gone", 60)
        wait_reason(cluster, dataset, "owner-disconnected")
        holds(lambda: not is_mounted(cluster, "h2", dataset), "silence is no proof", 2)
        began = time.monotonic()
        cluster.ctl("fence", "--confirm-off", cluster.node("h1"))
        db.wait("h2")
        print(f"it answers {time.monotonic() - began:.1f} s after the fence")
        assert db.sql("h2", "select count(*), max(n) from t") == f"{committed}|{committed}"
        cluster.start("h1")
        cluster.wait_nodes(["h1", "h2"], 120)
        wait_until(lambda: not is_fenced(cluster, "h1"), "the fence ends with the boot", 60)
        wait_settled(cluster, dataset, "h2", ["h1"], 60)
        assert cluster.shell("h1", "docker ps -q -f name=flocker--db").strip() == ""
        db.sql("h2", "insert into t values (0)")
