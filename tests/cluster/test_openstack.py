"""Two agents on a real Cinder and Keystone (stack.py), that attach volumes themselves. How calls go wrong: test_array_calls.py."""

import time

import pytest

from arrays import owners, volumes_of
from database import Database
from lab import wait_until
from volumes import Guard, create, is_mounted, volume, wait_reason

CLUSTER = {"nodes": 2, "backend": "openstack", "docker": True, "images": ["postgres"]}
HOSTS = ["h1", "h2"]
SIZE = 1 << 30


def delete(cluster, dataset):
    cluster.api.delete_dataset(dataset)
    wait_until(lambda: not volumes_of(cluster), "the volume is deleted", 120)


def read(cluster, host, dataset):
    with open(volume(cluster, host, dataset, "file"), encoding="ascii") as f:
        return f.read()


@pytest.mark.deadline(400)
def test_growth_refused(cluster):
    """Cinder's NFS driver grows no volume that is attached, and calls it error_extending from then on. It says so, and can be used as before: when its host
    has come up again, and elsewhere."""
    dataset = create(cluster, "h1", maximum_size=SIZE)
    cluster.shell("h1", f"echo precious >/flocker/{dataset}/file; sync /flocker/{dataset}/file")
    with Guard(cluster, dataset, HOSTS):
        cluster.api.expect("POST", f"/v1/configuration/datasets/{dataset}", {"maximum_size": 2 * SIZE})
        assert "error_extending" in wait_reason(cluster, dataset, "storage-error", 60)
        cluster.kill("h1")
        cluster.start("h1")
        wait_until(lambda: is_mounted(cluster, "h1", dataset), "it is mounted again", 120)
        assert read(cluster, "h1", dataset) == "precious\n"
        wait_until(lambda: [v["status"] for v in volumes_of(cluster)] == ["error_extending"], "it is as it was", 60)
        assert "error_extending" in wait_reason(cluster, dataset, "storage-error", 60)
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_until(lambda: is_mounted(cluster, "h2", dataset) and owners(cluster) == [["h2"]], "it has moved", 120)
        assert read(cluster, "h2", dataset) == "precious\n"
    delete(cluster, dataset)


@pytest.mark.deadline(600)
def test_database_moves(cluster):
    dataset = create(cluster, "h1", maximum_size=SIZE)
    db = Database(cluster, dataset, "h1", 180)
    before = db.fill("h1", 20000)
    with Guard(cluster, dataset, HOSTS):
        began = time.monotonic()
        db.move("h2", 180)
        print(f"it answers {time.monotonic() - began:.1f} s after the move was ordered")
        assert db.sums("h2") == before
        db.sql("h2", "insert into t values (0, 'committed')")
        cluster.kill("h2")
        cluster.api.move_container("db", cluster.node("h1"))
        cluster.ctl("fence", "--confirm-off", cluster.node("h2"))
        db.wait("h1", 180)
    assert db.sql("h1", "select h from t where n = 0") == "committed"
    db.delete()
    delete(cluster, dataset)
    cluster.start("h2")
    cluster.wait_nodes(HOSTS, 120)
