"""Real agents and the EC2 of tests/ec2, whose volumes are real block devices: moves of a database, growth, limits, dead hosts,
agents that die between two calls, lists that lag, an account that is throttled."""

import pytest

from arrays import array
from database import move_there_and_back
from lab import holds, wait_until
from volumes import is_mounted, wait_reason

# xfs can be made larger in a container of CI, too: for ext4 the kernel asks for CAP_SYS_RESOURCE.
CLUSTER = {"nodes": 2, "backend": "aws", "docker": True, "images": ["postgres"], "options": ["--filesystem", "xfs"]}
GIB = 1 << 30
HOSTS = ["h1", "h2"]
QUICK = {"create_s": 0, "attach_s": 0, "detach_s": 0, "delete_s": 0, "lag_s": 0, "rate": 0, "attach_max": 27, "modify_s": 0,
         "optimize_s": 0, "device_grows_s": 0, "modify_again_s": 0}


def calls(cluster, action):
    return array(cluster)["calls"].get(action, 0)


def volumes_of(cluster, dataset):
    return [v for v in array(cluster)["volumes"] if v["tags"].get("flocker-dataset-id") == dataset and v["status"] != "deleted"]


def create(cluster, host, gib=1):
    dataset = cluster.api.create_dataset(cluster.node(host), maximum_size=gib * GIB)
    cluster.wait_mounted(dataset, host)
    return dataset


def write(cluster, host, dataset, text):
    cluster.shell(host, f"echo {text} >/flocker/{dataset}/f && sync /flocker/{dataset}/f")


def read(cluster, host, dataset):
    return cluster.shell(host, f"cat /flocker/{dataset}/f").strip()


def size_of(cluster, dataset):
    return (cluster.api.dataset_state(dataset) or {}).get("maximum_size")


@pytest.fixture(autouse=True)
def quick(cluster):
    yield
    array(cluster, settings=QUICK, faults=[], instances={"i-h1": {"state": "running"}, "i-h2": {"state": "running"}})
    for host in ("h1", "h2"):
        cluster.start(host)
    cluster.wait_nodes(["h1", "h2"])
    for dataset in cluster.api.datasets():
        if not dataset["deleted"]:
            cluster.api.delete_dataset(dataset["dataset_id"])
    wait_until(lambda: not [v for v in array(cluster)["volumes"] if v["status"] != "deleted"], "no volume is left", 60)


@pytest.mark.deadline(300)
def test_database_moves(cluster):
    """EC2 takes as long as it really does, its lists are 30 seconds late, and the account may make few calls a second."""
    array(cluster, settings={"create_s": 1.5, "attach_s": 2, "detach_s": 2, "delete_s": 1, "lag_s": 30, "rate": 5})
    dataset = cluster.api.create_dataset(cluster.node("h1"), maximum_size=GIB)
    move_there_and_back(cluster, dataset, HOSTS)
    assert len(volumes_of(cluster, dataset)) == 1


def test_grow(cluster):
    dataset = create(cluster, "h1")
    write(cluster, "h1", dataset, "kept")
    array(cluster, settings={"modify_s": 1, "device_grows_s": 2, "optimize_s": 3, "modify_again_s": 3600})
    cluster.api.expect("POST", f"/v1/configuration/datasets/{dataset}", {"maximum_size": 2 * GIB})
    wait_until(lambda: size_of(cluster, dataset) == 2 * GIB, "it has grown", 60)
    wait_until(lambda: volumes_of(cluster, dataset)[0]["modification"]["state"] == "completed", "EC2 has optimized it", 30)
    cluster.shell("h1", f"fallocate -l 1200M /flocker/{dataset}/large")
    # EC2 allows the next one only after hours: that is said, and EC2 is not asked all the time.
    cluster.api.expect("POST", f"/v1/configuration/datasets/{dataset}", {"maximum_size": 3 * GIB})
    assert "6 hours" in wait_reason(cluster, dataset, "storage-limit", 60)
    asked = calls(cluster, "ModifyVolume")
    holds(lambda: calls(cluster, "ModifyVolume") == asked, "it does not ask again", 3)
    assert read(cluster, "h1", dataset) == "kept"
    array(cluster, settings={"modify_again_s": 0})
    cluster.stop("h1", "agent")
    cluster.start("h1", "agent")
    wait_until(lambda: size_of(cluster, dataset) == 3 * GIB, "then it has", 60)


def test_attach_limit(cluster):
    array(cluster, settings={"attach_max": 1})
    first = create(cluster, "h1")
    second = cluster.api.create_dataset(cluster.node("h1"), maximum_size=GIB)
    text = wait_reason(cluster, second, "storage-limit", 60)
    assert "instance i-h1 has 1 volumes, and can have no more" in text
    assert "Move datasets away" in cluster.ctl("why", second)
    cluster.api.move_dataset(first, cluster.node("h2"))
    cluster.wait_mounted(first, "h2")
    cluster.wait_mounted(second, "h1", 90)


@pytest.mark.deadline(240)
def test_dead_host(cluster):
    """The operator's word is not enough: EC2 must say that the instance is off."""
    dataset = create(cluster, "h1")
    write(cluster, "h1", dataset, "kept")
    cluster.kill("h1")
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_reason(cluster, dataset, "owner-disconnected", 60)
    wait_until(lambda: "is fenced since" in cluster.ctl("fence", "--confirm-off", cluster.node("h1"), check=False), "it is fenced", 90)
    text = wait_reason(cluster, dataset, "storage-error", 60)
    assert "i-h1" in text and "EC2 says that it is running" in text
    assert not is_mounted(cluster, "h2", dataset)
    array(cluster, instances={"i-h1": {"state": "stopping"}})
    holds(lambda: not is_mounted(cluster, "h2", dataset), "it may still write", 3)
    array(cluster, instances={"i-h1": {"state": "stopped"}})
    cluster.wait_mounted(dataset, "h2", 90)
    assert read(cluster, "h2", dataset) == "kept"
    array(cluster, instances={"i-h1": {"state": "running"}})
    cluster.start("h1")
    cluster.wait_nodes(["h1", "h2"], 60)
    cluster.ctl("unfence", cluster.node("h1"), check=False)
    assert read(cluster, "h2", dataset) == "kept"


@pytest.mark.deadline(300)
@pytest.mark.parametrize("action", ["CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume"])
def test_killed_in_a_call(cluster, action):
    """EC2 does what it was asked for, and whoever asked is dead before the answer."""
    host = {"DeleteVolume": "h2"}.get(action, "h1")
    dataset = None if action in ("CreateVolume", "AttachVolume") else create(cluster, "h1")
    if dataset:
        write(cluster, "h1", dataset, "kept")
    if action == "DeleteVolume":
        cluster.api.move_dataset(dataset, cluster.node("h2"))
        cluster.wait_mounted(dataset, "h2")
    before = calls(cluster, action)
    array(cluster, faults=[{"action": action, "how": "late", "seconds": 2}])
    if not dataset:
        dataset = cluster.api.create_dataset(cluster.node("h1"), maximum_size=GIB)
    elif action == "DetachVolume":
        cluster.api.move_dataset(dataset, cluster.node("h2"))
    else:
        cluster.api.delete_dataset(dataset)
    wait_until(lambda: calls(cluster, action) > before, f"{action} is on its way", 60)
    cluster.kill(host, "agent")
    cluster.start(host, "agent")
    if action == "DeleteVolume":
        cluster.wait_gone(dataset)
        wait_until(lambda: not volumes_of(cluster, dataset), "the volume has gone", 60)
        return
    there = "h2" if action == "DetachVolume" else "h1"
    cluster.wait_mounted(dataset, there, 90)
    assert len(volumes_of(cluster, dataset)) == 1
    if action == "DetachVolume":
        assert read(cluster, "h2", dataset) == "kept"


@pytest.mark.deadline(240)
@pytest.mark.parametrize("how", ["lost", "drop", "twice"])
def test_each_call_goes_wrong(cluster, how):
    array(cluster, faults=[{"action": a, "how": how} for a in
                          ("CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume", "DescribeVolumes")])
    dataset = create(cluster, "h1")
    write(cluster, "h1", dataset, how)
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    cluster.wait_mounted(dataset, "h2", 90)
    assert read(cluster, "h2", dataset) == how
    assert len(volumes_of(cluster, dataset)) == 1
    cluster.api.delete_dataset(dataset)
    wait_until(lambda: not volumes_of(cluster, dataset), "the volume has gone", 90)
