"""The whole configuration at once, as flocker-deploy posts it: put up, partly taken away, put back with its data."""

import pytest

from volumes import Guard, digest, fill, is_mounted, volume
from lab import wait_until

CLUSTER = {"nodes": 2, "backend": ["btrfs", "loopback"], "docker": True, "images": ["busybox"]}
D1 = "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
IMAGE = "flocker-lab/busybox:1"


def application(volume_id=None, **more):
    config = {"image": IMAGE, **more}
    if volume_id:
        config["volume"] = {"mountpoint": "/data", "dataset_id": volume_id, "maximum_size": "1G"}
    return config


def compose(cluster, applications, **places):
    body = {"applications": {"version": 1, "applications": applications},
            "deployment": {"version": 1, "nodes": {cluster.address(host): names for host, names in places.items()}}}
    return cluster.api.call("POST", "/v1/configuration/_compose", body)


def wait_ran(cluster, name, host):
    """Such files name no command, so busybox has nothing to do and ends at once."""
    def there():
        return any(c["name"] == name and c["node_uuid"] == cluster.node(host) for c in cluster.api.container_states())
    wait_until(there, f"container {name} on {host}", 60)
    wait_until(lambda: "container-exited" in cluster.ctl("why", name, check=False), f"container {name} to end", 30)


def ids(cluster):
    return {d["dataset_id"] for d in cluster.api.datasets() if not d["deleted"]}


def names(cluster):
    return {c["name"] for c in cluster.api.containers()}


@pytest.mark.deadline(240)
def test_up_away_and_back(cluster):
    before = cluster.api.create_dataset(cluster.node("h1"))  # not of the composition: it goes
    cluster.wait_mounted(before, "h1")
    cluster.api.acquire_lease(before, cluster.node("h1"))
    both = {"db": application(D1), "web": application(ports=[{"internal": 80, "external": 8080}])}
    answer = compose(cluster, both, h1=["db"], h2=["web"])
    assert (answer.status, answer.body) == (200, b"null")
    cluster.wait_mounted(D1, "h1")
    wait_ran(cluster, "db", "h1")
    wait_ran(cluster, "web", "h2")
    assert ids(cluster) == {D1} and names(cluster) == {"db", "web"} and cluster.api.leases() == []
    assert cluster.api.datasets()[0]["metadata"] == {"name": "db"}
    wait_until(lambda: not is_mounted(cluster, "h1", before), "the dataset of before unmounted", 30)
    fill(volume(cluster, "h1", D1))
    content = digest(volume(cluster, "h1", D1))
    # Without db: its dataset is unmounted and kept; web runs on untouched.
    started = cluster.api.container_states()
    assert compose(cluster, both, h2=["web"]).status == 200
    wait_until(lambda: not is_mounted(cluster, "h1", D1), "the dropped dataset unmounted", 30)
    wait_until(lambda: len(cluster.api.container_states()) == 1, "db gone", 30)
    assert ids(cluster) == set() and names(cluster) == {"web"}
    assert [c for c in started if c["name"] == "web"] == cluster.api.container_states()
    # Back, on the other node: it comes with its data.
    with Guard(cluster, D1, ["h1", "h2"]):
        assert compose(cluster, both, h2=["web", "db"]).status == 200
        wait_ran(cluster, "db", "h2")
        cluster.wait_mounted(D1, "h2")
    assert digest(volume(cluster, "h2", D1)) == content
    assert compose(cluster, {}).status == 200
    wait_until(lambda: cluster.api.container_states() == [], "no container", 30)
    wait_until(lambda: not is_mounted(cluster, "h2", D1), "nothing mounted", 30)


def test_refused_whole(cluster):
    """Nothing changes when anything is wrong."""
    cluster.api.create_container(cluster.node("h1"), "stays", IMAGE)

    def refused(answer, status, description):
        assert (answer.status, answer.json()["description"]) == (status, description)
        assert names(cluster) == {"stays"}
    one = {"web": application(ports=[{"internal": 80, "external": 8080}])}
    refused(compose(cluster, {"shop-web": {}}), 400, "Application 'shop-web' has a config error. Missing 'image' key.")
    refused(compose(cluster, one, h1=["web"], h2=["web"]), 400, "Application 'web' appears more than once.")
    body = {"applications": {"version": 1, "applications": one}, "deployment": {"version": 1, "nodes": {"10.20.0.1": ["web"]}}}
    answer = cluster.api.call("POST", "/v1/configuration/_compose", body)
    refused(answer, 400, "No known node with address 10.20.0.1.")
    refused(compose(cluster, {**one, "web2": one["web"]}, h1=["web", "web2"]), 409,
            "A specified external port is already in use. (web2)")
    refused(compose(cluster, {"aa": application(D1), "bb": application(D1)}, h1=["aa", "bb"]), 409,
            f"The provided dataset_id is already in use. ({D1})")
    large = cluster.api.create_dataset(cluster.node("h1"), maximum_size=2 << 30)
    refused(compose(cluster, {"aa": application(large)}, h1=["aa"]), 409,
            f"The maximum_size of a dataset can only grow, and only when it had one. ({large})")
    cluster.api.delete_dataset(large)
    answer = cluster.api.call("POST", "/v1/configuration/_compose", {"applications": []})
    assert answer.status == 400 and len(answer.json()["errors"]) == 2
    gone = cluster.api.create_dataset(cluster.node("h1"))
    cluster.api.delete_dataset(gone)
    refused(compose(cluster, {"aa": application(gone)}, h1=["aa"]), 400,
            f"The dataset {gone} has been deleted; its id can be used again once it is purged and nothing of it is left.")
    cluster.api.delete_container("stays")


def test_fig(cluster):
    fig = {"site": {"image": IMAGE, "links": ["base:db"]},
           "base": {"image": IMAGE, "ports": ["7001:80", "7002:81"], "volumes": ["/data"], "environment": ["A=b"]}}
    body = {"applications": fig, "deployment": {"version": 1, "nodes": {cluster.address("h1"): ["site", "base"]}}}
    assert cluster.api.call("POST", "/v1/configuration/_compose", body).status == 200
    wait_ran(cluster, "site", "h1")
    wait_ran(cluster, "base", "h1")
    site = [c for c in cluster.api.containers() if c["name"] == "site"][0]
    assert {(one["alias"], one["local_port"], one["remote_port"]) for one in site["links"]} == {("db", 80, 7001),
                                                                                                ("db", 81, 7002)}
    assert compose(cluster, {}).status == 200
    wait_until(lambda: cluster.api.container_states() == [], "no container", 30)
