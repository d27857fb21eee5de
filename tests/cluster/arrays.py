"""The storage that a lab's cluster asks over a network: the arrays of tests/arrays and the EC2 of tests/ec2, which are simulated and stand in the
client's network, and a real OpenStack (stack.py)."""

import http.client
import json

from database import move_there_and_back
from lab import connect_in, https_in, wait_until
from volumes import create

ADDRESS = ("10.77.0.8", 443)
EC2 = ("10.77.0.8", 4599)
CHANGES = {  # the calls that change something; all others only look
    "aws": {"CreateVolume", "AttachVolume", "DetachVolume", "ModifyVolume", "DeleteVolume"},
    "powerflex": {"create", "map", "unmap", "resize", "remove"},
    "xtremio": {"POST volumes", "POST lun-maps", "DELETE lun-maps", "PUT volumes", "DELETE volumes"},
    "openstack": {"POST volume /volumes", "POST volume /volumes/ID/metadata", "POST volume /attachments", "POST volume /attachments/ID/action",
                  "DELETE volume /attachments/ID", "DELETE volume /volumes/ID"},
}
ATTACH = {"aws": "AttachVolume", "powerflex": "map", "xtremio": "POST lun-maps", "openstack": "POST volume /attachments"}
DETACH = {"aws": "DetachVolume", "powerflex": "unmap", "xtremio": "DELETE lun-maps", "openstack": "DELETE volume /attachments/ID"}
# Calls that nothing keeps from being done twice: a late one makes a second volume, which goes together with the dataset.
DOUBLES = {"openstack": "POST volume /volumes"}


def connect(cluster):
    pid = int(cluster.variables["CLIENT_PID"])
    if cluster.backend in ("powerflex", "xtremio"):
        return https_in(pid, *ADDRESS, cluster.path("array", "ca.pem"))
    address = EC2 if cluster.backend == "aws" else cluster.between
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.sock = connect_in(pid, address, 30)
    return connection


def array(cluster, **what):
    """What the storage has, and what it was asked; with arguments it is told them first (POST /control)."""
    connection = connect(cluster)
    try:
        if what:
            connection.request("POST", "/control", json.dumps(what))
            assert connection.getresponse().read() == b"{}"
        connection.request("GET", "/control")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def volumes_of(cluster):
    if cluster.backend == "openstack":
        return cluster.volumes()
    return [v for v in array(cluster)["volumes"] if v.get("status") != "deleted"]


def owners(cluster):
    """Of each volume, the hosts that it is attached to; None for one whose attachment was begun and not finished."""
    if cluster.backend == "openstack":
        return [v["hosts"] for v in volumes_of(cluster)]
    if cluster.backend == "aws":
        return [[v["attachment"]["instance"].removeprefix("i-")] if v["attachment"] else [] for v in volumes_of(cluster)]
    if cluster.backend == "powerflex":
        return [[f"h{int(guid.rsplit('-')[-1], 16)}" for guid in v["guids"]] for v in volumes_of(cluster)]
    return [[m[0][1] for m in v["lun-mapping-list"]] for v in volumes_of(cluster)]


def move_database(cluster, size):
    """A database moves between h1 and h2. Nothing is left on the array."""
    dataset = create(cluster, "h1", maximum_size=size)
    move_there_and_back(cluster, dataset, ["h1", "h2"])
    assert owners(cluster) == [["h1"]]
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
    wait_until(lambda: not volumes_of(cluster), "the volume is removed", 20)
