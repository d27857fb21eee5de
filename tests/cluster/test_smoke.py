"""The shortest way through a cluster on every backend that runs here: a dataset is made, moved, deleted."""

import pytest

from lab import wait_until

CLUSTER = {"nodes": 2, "backend": ["btrfs", "loopback"]}
SEEN = {}


@pytest.mark.parametrize("turn", [1, 2])
def test_the_tests_of_a_module_share_a_cluster(cluster, turn):
    assert SEEN.setdefault(cluster.backend, cluster) is cluster, turn


def test_nodes_are_listed_with_their_addresses(cluster):
    nodes = {n["uuid"]: n["host"] for n in cluster.api.nodes()}
    assert nodes == {cluster.node(h): cluster.address(h) for h in ("h1", "h2")}


def test_a_dataset_moves_with_its_data(cluster):
    dataset = cluster.api.create_dataset(cluster.node("h1"), maximum_size=1 << 30, metadata={"name": "smoke"})
    path = cluster.wait_mounted(dataset, "h1")["path"]
    assert path == f"/flocker/{dataset}"
    cluster.shell("h1", f"echo data >{path}/file; sync {path}/file")
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    path = cluster.wait_mounted(dataset, "h2")["path"]
    assert cluster.run("h2", "cat", f"{path}/file") == "data\n"
    assert dataset not in cluster.run("h1", "cat", "/proc/mounts")
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
    for host in ("h1", "h2"):
        wait_until(lambda host=host: dataset not in cluster.run(host, "cat", "/proc/mounts"), f"unmounted on {host}")
