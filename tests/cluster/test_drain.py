"""flockerctl drain, cordon, uncordon."""

import json
import re
import uuid

import pytest

from lab import wait_until

CLUSTER = {"nodes": 3, "backend": "btrfs", "docker": True, "images": ["busybox"]}
IMAGE = "flocker-lab/busybox:1"
SLEEP = ["sh", "-c", "trap exit TERM; sleep 1000 & wait"]


def cordoned(cluster):
    return {n["uuid"] for n in cluster.api.nodes() if n.get("cordoned")}


def on(cluster, host):
    """What is configured there."""
    node = cluster.node(host)
    return ({c["name"] for c in cluster.api.containers() if c["node_uuid"] == node},
            {d["dataset_id"] for d in cluster.api.datasets() if d["primary"] == node and not d["deleted"]})


@pytest.fixture
def things(cluster):
    """On h1: a container with a dataset, one without, and two datasets of nobody."""
    node = cluster.node("h1")
    datasets = [cluster.api.create_dataset(node, maximum_size=1 << 28) for _ in range(3)]
    for dataset in datasets:
        path = cluster.wait_mounted(dataset, "h1")["path"]
        cluster.shell("h1", f"echo {dataset} >{path}/me")
    cluster.api.create_container(node, "db", IMAGE, command_line=SLEEP,
                                 volumes=[{"dataset_id": datasets[0], "mountpoint": "/data"}])
    cluster.api.create_container(node, "web", IMAGE, command_line=SLEEP)
    cluster.wait_container("db", "h1")
    cluster.wait_container("web", "h1")
    yield datasets
    for node in cordoned(cluster):
        cluster.ctl("uncordon", node)
    for name in ("db", "web"):
        cluster.api.delete_container(name)
    wait_until(lambda: not cluster.api.container_states(), "containers gone", 60)
    for dataset in datasets:
        cluster.api.delete_dataset(dataset)
        cluster.wait_gone(dataset)


def test_everything_moves_away_and_nothing_is_placed_there(cluster, things):
    said = cluster.ctl("drain", "--wait", cluster.address("h1"))
    assert "container db goes to" in said and "is empty" in said
    assert on(cluster, "h1") == (set(), set())
    (names2, data2), (names3, data3) = on(cluster, "h2"), on(cluster, "h3")
    assert names2 | names3 == {"db", "web"} and data2 | data3 == set(things)
    assert data2 and data3, "it is spread"
    for host, data in (("h2", data2), ("h3", data3)):
        for dataset in data:
            assert cluster.run(host, "cat", f"/flocker/{dataset}/me").strip() == dataset
    assert cordoned(cluster) == {cluster.node("h1")}
    assert "cordoned" in cluster.ctl("list-nodes")
    assert cluster.api.expect("GET", "/v1/cordons") == [{"node_uuid": cluster.node("h1")}]
    # The mark is durable, and calling it again changes nothing.
    cluster.kill("control")
    cluster.start("control")
    cluster.wait_nodes(("h1", "h2", "h3"))
    assert cordoned(cluster) == {cluster.node("h1")}
    answer = json.loads(cluster.ctl("drain", "--wait", "-o", "json", cluster.address("h1")))
    assert answer == {"uuid": cluster.node("h1"), "moved": [], "refused": [], "left": []}
    # Whoever names it gets it.
    named = cluster.api.create_dataset(cluster.node("h1"), maximum_size=1 << 28)
    cluster.wait_mounted(named, "h1")
    cluster.api.delete_dataset(named)
    cluster.wait_gone(named)
    # A second one goes to the only node that is left.
    cluster.ctl("drain", "--wait", cluster.address("h2"))
    assert on(cluster, "h3") == ({"db", "web"}, set(things))
    failed = cluster.ctl("drain", cluster.address("h3"), check=False)
    assert on(cluster, "h3") == ({"db", "web"}, set(things)), failed
    cluster.ctl("uncordon", cluster.address("h1"))
    assert cordoned(cluster) == {cluster.node("h2"), cluster.node("h3")}
    assert cluster.ctl("uncordon", cluster.address("h1"))  # again: no effect


def test_to_one_node_and_what_cannot_move(cluster, things):
    cluster.api.acquire_lease(things[1], cluster.node("h1"))
    done = cluster.lab("ctl", "drain", "--to", cluster.address("h3"), "--wait=8", "-o", "json", cluster.address("h1"), check=False)
    answer = json.loads(done)
    assert [item["id"] for item in answer["left"]] == [things[1]]
    assert answer["left"][0]["reason"]["code"] == "lease-held"
    assert {item["to"] for item in answer["moved"]} == {cluster.node("h3")}
    wait_until(lambda: cluster.api.dataset_state(things[0])["primary"] == cluster.node("h3"), "the rest has moved")
    cluster.api.release_lease(things[1])
    assert "is empty" in cluster.ctl("drain", "--wait", cluster.address("h1"))
    assert on(cluster, "h3") == ({"db", "web"}, set(things))


def test_unknown_nodes(cluster):
    nobody = "11111111-2222-4333-8444-555555555555"
    assert cluster.api.call("POST", f"/v1/cordons/{nobody}").status == 404
    assert cluster.api.call("POST", "/v1/cordons/x").status == 400
    assert cluster.ctl("drain", cluster.address("h1"), "-t", cluster.address("h1"), check=False) == ""
    assert cordoned(cluster) == set()


def test_data_go_where_room_is(cluster, things):
    def left():
        return {host: next(n for n in cluster.api.nodes() if n["uuid"] == cluster.node(host)).get("space", {}).get("free", 0)
                for host in ("h2", "h3")}
    filler = cluster.api.create_dataset(cluster.node("h2"))
    path = cluster.wait_mounted(filler, "h2")["path"]
    cluster.run("h2", "fallocate", "-l", "5G", f"{path}/much")
    cluster.api.create_dataset(cluster.node("h2"), dataset_id=(small := str(uuid.uuid4())))  # then it looks
    wait_until(lambda: left()["h2"] + (4 << 30) < left()["h3"], "h2 tells that it has less room", 20)
    assert re.search(r"FREE.*\n.* of 20\.0G", cluster.ctl("list-nodes"))
    compose = {"services": {"new": {"image": IMAGE, "volumes": ["v:/data"]}}, "volumes": {"v": {"x-flocker-size": "1G"}}}
    cluster.ctl("cordon", cluster.address("h1"))
    plan = cluster.api.expect("POST", "/v1/configuration/_plan", {"applications": compose, "spread": True})
    assert {c["to"] for c in plan["changes"] if c["action"] == "create"} == {cluster.node("h3")}
    huge = cluster.api.create_dataset(cluster.node("h1"), maximum_size=100 << 30)
    cluster.wait_mounted(huge, "h1")
    said = cluster.ctl("drain", cluster.address("h1"), check=False)
    assert f"dataset {huge} cannot be moved: no node has room for it: its data may grow to 100.0G" in said, said
    assert on(cluster, "h3")[1] == set(things) and on(cluster, "h1")[1] == {huge}
    cluster.ctl("drain", "--to", cluster.address("h3"), "--wait", cluster.address("h1"))
    assert on(cluster, "h3")[1] == {*things, huge}
    for dataset in (filler, small, huge):
        cluster.api.delete_dataset(dataset)
        cluster.wait_gone(dataset)
