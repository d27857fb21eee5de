"""What only ZFS has: volumes of Flocker 1 in a node's pool, a pool that is away, one that is full."""

import json
import os
import uuid

from lab import wait_until
from volumes import ZFS_TOP, create, delete, state, volume, wait_reason, wait_settled

HOSTS = ["h1", "h2"]
CLUSTER = {"nodes": 2, "backend": "zfs"}


def make_old(cluster, host, owner):
    """As Flocker 1 made them: <owner>.default.<dataset>, mounted under that name."""
    dataset = str(uuid.uuid4())
    name = f"{owner}.default.{dataset}"
    cluster.shell(host, f"zfs create -o mountpoint=/old/{name} -o readonly=off -o refquota=67108864 flocker/{name}; "
                        f"cd /old/{name}; chmod 777 .; echo precious >data; mkdir d; echo deep >d/file")
    return dataset


def test_volumes_of_flocker_1_are_taken_over(cluster):
    owner, other = str(uuid.uuid4()), str(uuid.uuid4())
    with open(cluster.path("h1", "etc", "volume.json"), "w", encoding="utf-8") as f:
        json.dump({"uuid": owner, "version": 1}, f)
    dataset, foreign = make_old(cluster, "h1", owner), make_old(cluster, "h1", other)
    shown = cluster.run("h1", "flocker-volume", "adopt").splitlines()
    assert f"{dataset}  would be adopted, maximum_size 67108864" in shown
    assert f"{foreign}  a copy that another node owns: left alone, maximum_size 67108864" in shown
    assert shown[-1] == "Nothing was changed. Add --yes to adopt."
    assert f"{dataset}  adopted, maximum_size 67108864" in cluster.run("h1", "flocker-volume", "adopt", "--yes").splitlines()
    assert dataset not in cluster.run("h1", "flocker-volume", "adopt")
    # Nobody knows it yet, and nothing becomes of it.
    assert all(d["dataset_id"] != dataset for d in cluster.api.datasets())
    cluster.api.create_dataset(cluster.node("h1"), dataset_id=dataset, maximum_size=67108864)
    cluster.wait_mounted(dataset, "h1")
    for host, at in (("h1", "h1"), ("h2", "h2")):
        if host != "h1":
            cluster.api.move_dataset(dataset, cluster.node(host))
        wait_settled(cluster, dataset, at, [h for h in HOSTS if h != at])
        with open(volume(cluster, at, dataset, "data"), encoding="ascii") as f:
            assert f.read() == "precious\n"
        assert os.path.exists(volume(cluster, at, dataset, "d", "file"))
    delete(cluster, dataset, HOSTS)
    assert f"flocker/{other}.default.{foreign}" in cluster.run("h1", "zfs", "list", "-H", "-o", "name")
    cluster.shell("h1", f"for i in 1 2 3 4 5 6 7 8 9; do zfs destroy -r flocker/{other}.default.{foreign} && break; sleep 0.2; done")


def test_zfs_is_away(cluster):
    """The daemon is what a kernel module is elsewhere: without it the reason says so, and with it all goes on."""
    dataset = create(cluster, "h1", maximum_size=64 << 20)
    cluster.kill("h2", "zfs")
    cluster.kill("h2", "agent")
    cluster.start("h2", "agent")
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_until(lambda: state(cluster, dataset)["reason"], "a reason", 20)
    assert "ZFS does not run on this machine" in cluster.shell("h2", f"cat {cluster.path('h2', 'log', 'agent')}")
    cluster.shell("h2", "umount -l /var/lib/flocker/zfs/marks 2>/dev/null || true")
    cluster.start("h2", "zfs")
    wait_settled(cluster, dataset, "h2", ["h1"], 60)
    delete(cluster, dataset, HOSTS)


def test_pool_is_full(cluster):
    """A destination without room says so; the source keeps the dataset, and the move ends when there is room."""
    dataset = create(cluster, "h1")
    cluster.shell("h1", f"dd if=/dev/urandom of=/flocker/{dataset}/big bs=1M count=40 conv=fsync status=none")
    cluster.shell("h2", f"zfs set quota=30M {ZFS_TOP}")
    try:
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        wait_reason(cluster, dataset, "no-space", 40)
        cluster.shell("h1", f"echo x >/flocker/{dataset}/more")
    finally:
        cluster.shell("h2", f"zfs set quota=none {ZFS_TOP}")
    wait_settled(cluster, dataset, "h2", ["h1"], 90)
    assert os.path.getsize(volume(cluster, "h2", dataset, "big")) == 40 << 20
    delete(cluster, dataset, HOSTS)
