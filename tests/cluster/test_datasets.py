"""Datasets without containers: made, filled, limited, moved, deleted; many at once; busy ones."""

import os
import re
import time

import pytest

from lab import ApiError
from volumes import Guard, create, delete, digest, fill, has_place, is_mounted, state, volume, wait_reason, wait_settled

HOSTS = ["h1", "h2", "h3"]
CLUSTER = {"nodes": 3, "backend": ["btrfs", "zfs", "loopback", "fake"]}
SIZE = 67108864
REFUSED = re.compile("quota exceeded|no space left", re.I)


def limit(cluster, size=256 << 20):
    """The fake backend knows no limits, and says so."""
    return {} if cluster.backend == "fake" else {"maximum_size": size}


def test_life_of_a_dataset(cluster):
    metadata = {"name": "life", "größe": "groß"}
    dataset = cluster.api.create_dataset(cluster.node("h1"), metadata=metadata, **limit(cluster, SIZE))
    shown = cluster.wait_mounted(dataset, "h1", 20)
    assert shown == {"dataset_id": dataset, "primary": cluster.node("h1"), "path": f"/flocker/{dataset}",
                     **limit(cluster, SIZE)}
    configured = [d for d in cluster.api.datasets() if d["dataset_id"] == dataset]
    assert configured == [{"dataset_id": dataset, "primary": cluster.node("h1"), "metadata": metadata,
                           "deleted": False, **limit(cluster, SIZE)}]
    assert is_mounted(cluster, "h1", dataset)
    device = state(cluster, dataset).get("device")
    if cluster.backend == "loopback":
        assert device == cluster.shell("h1", f"findmnt -no SOURCE /flocker/{dataset}").strip()
    else:
        assert device is None
    assert not any(has_place(cluster, h, dataset) for h in HOSTS[1:])
    with open(volume(cluster, "h1", dataset, "file"), "w", encoding="ascii") as f:
        f.write("x")
    with pytest.raises(ApiError) as caught:
        cluster.api.create_dataset(cluster.node("h2"), dataset_id=dataset)
    assert caught.value.status == 409
    delete(cluster, dataset, HOSTS)
    if cluster.backend == "loopback":
        left = [os.path.join(a, n) for a, names, files in os.walk(cluster.path("shared")) for n in names + files]
        assert not [p for p in left if dataset in p]
    entry = [d for d in cluster.api.datasets() if d["dataset_id"] == dataset]
    assert not entry or entry[0]["deleted"]


def test_size_limit_is_enforced(cluster):
    if cluster.backend == "fake":
        dataset = cluster.api.create_dataset(cluster.node("h1"), maximum_size=SIZE)
        assert "cannot limit the size" in wait_reason(cluster, dataset, "storage-error")
        delete(cluster, dataset, HOSTS)
        return
    dataset = create(cluster, "h1", maximum_size=SIZE)

    def write(host, name, size):
        """What dd says."""
        script = f"dd if=/dev/urandom of=/flocker/{dataset}/{name} bs=1M count={size >> 20} conv=fsync 2>&1"
        return cluster.shell(host, script, check=False)
    try:
        assert "copied" in write("h1", "half", SIZE // 2)
        assert REFUSED.search(write("h1", "over", SIZE))
        assert os.path.getsize(volume(cluster, "h1", dataset, "over")) < SIZE
        # The limit goes along.
        os.unlink(volume(cluster, "h1", dataset, "over"))
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        cluster.wait_mounted(dataset, "h2")
        assert REFUSED.search(write("h2", "over", SIZE))
        assert os.path.getsize(volume(cluster, "h2", dataset, "half")) == SIZE // 2
    finally:
        delete(cluster, dataset, HOSTS)


def test_move_and_back(cluster):
    dataset = create(cluster, "h1", **limit(cluster))
    fill(volume(cluster, "h1", dataset))
    before = digest(volume(cluster, "h1", dataset))
    with Guard(cluster, dataset, HOSTS):
        for host in ("h2", "h3", "h1", "h2"):
            cluster.api.move_dataset(dataset, cluster.node(host))
            others = [h for h in HOSTS if h != host]
            wait_settled(cluster, dataset, host, others)
            assert digest(volume(cluster, host, dataset)) == before
            with open(volume(cluster, host, dataset, host), "w", encoding="ascii") as f:
                f.write(f"was on {host}\n")
            before = digest(volume(cluster, host, dataset))
    with open(volume(cluster, "h2", dataset, "h3"), encoding="ascii") as f:
        assert f.read() == "was on h3\n"
    delete(cluster, dataset, HOSTS)


def test_a_wish_that_changes_while_it_moves(cluster):
    """Every node asked for in quick succession: the last wish counts."""
    dataset = create(cluster, "h1", **limit(cluster))
    fill(volume(cluster, "h1", dataset), big=8 << 20)
    before = digest(volume(cluster, "h1", dataset))
    with Guard(cluster, dataset, HOSTS):
        for number in range(12):
            cluster.api.move_dataset(dataset, cluster.node(HOSTS[(number * 2 + 1) % 3]))
            time.sleep(0.01 * number)
        cluster.api.move_dataset(dataset, cluster.node("h3"))
        wait_settled(cluster, dataset, "h3", ["h1", "h2"])
    assert digest(volume(cluster, "h3", dataset)) == before
    delete(cluster, dataset, HOSTS)
