"""The simulated storage arrays of tests/arrays, as a lab's cluster has one: they stand in the client's network."""

import json

from lab import https_in

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
