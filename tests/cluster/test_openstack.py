"""Two agents on a real Cinder and Keystone: a PostgreSQL moves between hosts that attach its volume themselves."""

import glob
import json
import os
import subprocess
import sys
import time

import pytest

from database import Database
from lab import CHECKOUT, wait_until
from volumes import Guard, create

OPENSTACK = os.path.join(CHECKOUT, "lab", "openstack")
HOSTS = ["h1", "h2"]

pytestmark = pytest.mark.skipif(not glob.glob(os.path.join(CHECKOUT, "build", "cache", "cloud-data-*")),
                                reason="needs an OpenStack (lab/openstack build, some minutes)")


class Cloud:
    """It runs on the control service's host, that is in its network."""

    def __init__(self, cluster):
        with open(cluster.path("control", "pid"), encoding="ascii") as f:
            network = f"--net=/proc/{f.read().strip()}/ns/net"
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            ["nsenter", network, sys.executable, "-B", OPENSTACK, "run", "--dir", cluster.path("cloud"), "--auth", "keystone",
             "--address", cluster.variables["FLOCKER_CONTROL_SERVICE"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, "the cloud did not start"
        self.facts = json.loads(line)

    def dataset(self):
        """The section of agent.yml."""
        return {"backend": "openstack", "attach": "cinder", "auth_plugin": "v3applicationcredential",
                "auth_url": self.facts["auth_url"], "region": self.facts["region"],
                "application_credential_id": self.facts["credential_id"],
                "application_credential_secret": self.facts["credential_secret"]}

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def use(cluster, cloud, host):
    """The agent of the host gets another storage; and the host a program for what stands for NFS."""
    cluster.shell(host, f"cp {cluster.path('cloud', 'bin', 'mount.nfs')} /usr/sbin/mount.nfs")
    cluster.stop(host, "agent")
    path = cluster.path(host, "etc", "agent.yml")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["dataset"] = cloud.dataset()
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    cluster.start(host, "agent")


@pytest.mark.deadline(600)
def test_database_moves(make_cluster):
    cluster = make_cluster(nodes=2, backend="loopback", docker=True, images=["postgres"])
    cloud = Cloud(cluster)
    try:
        for host in HOSTS:
            use(cluster, cloud, host)
        cluster.wait_nodes(HOSTS, 120)
        dataset = create(cluster, "h1", maximum_size=1 << 30)
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
        cluster.api.delete_dataset(dataset)
        wait_until(lambda: not os.listdir(cloud.facts["export"]), "the volume is deleted", 120)
    finally:
        cloud.close()
