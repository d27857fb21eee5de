"""The simulated storage arrays of tests/arrays, as a lab's cluster has one: they stand in the client's network."""

import json

from database import move_there_and_back
from lab import https_in, wait_until
from volumes import create

ADDRESS = ("10.77.0.8", 443)


def array(cluster, **what):
    """What the array has; with arguments it is told them first (POST /control)."""
    connection = https_in(int(cluster.variables["CLIENT_PID"]), *ADDRESS, cluster.path("array", "ca.pem"))
    try:
        if what:
            connection.request("POST", "/control", json.dumps(what))
            assert connection.getresponse().read() == b"{}"
        connection.request("GET", "/control")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def move_database(cluster, size, owners):
    """A database moves between h1 and h2; `owners` says to which hosts each volume is mapped. Nothing is left on the array."""
    dataset = create(cluster, "h1", maximum_size=size)
    move_there_and_back(cluster, dataset, ["h1", "h2"])
    assert owners(cluster) == [["h1"]]
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
    wait_until(lambda: not array(cluster)["volumes"], "the volume is removed", 20)
