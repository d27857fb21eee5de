"""Two agents on a real Cinder and Keystone: a PostgreSQL moves between hosts that attach its volume themselves."""

import glob
import json
import os
import subprocess
import sys
import time

import pytest

from lab import CHECKOUT, wait_until
from volumes import Guard, create, wait_settled

OPENSTACK = os.path.join(CHECKOUT, "lab", "openstack")
HOSTS = ["h1", "h2"]
SQL = "docker exec flocker--db psql -h /tmp -U postgres -qtAc"

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


def sql(cluster, host, text):
    return cluster.shell(host, f'{SQL} "{text}"').strip()


def wait_database(cluster, host):
    cluster.wait_container("db", host, 180)
    wait_until(lambda: cluster.shell(host, f"{SQL} 'select 1'", check=False).strip() == "1", "PostgreSQL answers", 90)


@pytest.mark.deadline(600)
def test_database_moves(make_cluster):
    cluster = make_cluster(nodes=2, backend="loopback", docker=True, images=["postgres"])
    cloud = Cloud(cluster)
    try:
        for host in HOSTS:
            use(cluster, cloud, host)
        cluster.wait_nodes(HOSTS, 120)
        dataset = create(cluster, "h1", maximum_size=1 << 30)
        cluster.api.create_container(cluster.node("h1"), "db", "flocker-lab/postgres:1",
                                     volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
        wait_database(cluster, "h1")
        sql(cluster, "h1", "create table t as select n, md5(n::text) as h from generate_series(1, 20000) n")
        sums = "select count(*), md5(string_agg(h, '' order by n)) from t"
        before = sql(cluster, "h1", sums)
        assert before.startswith("20000|")
        with Guard(cluster, dataset, HOSTS):
            began = time.monotonic()
            cluster.api.move_container("db", cluster.node("h2"))
            wait_database(cluster, "h2")
            print(f"it answers {time.monotonic() - began:.1f} s after the move was ordered")
            assert sql(cluster, "h2", sums) == before
            sql(cluster, "h2", "insert into t values (0, 'committed')")
            cluster.kill("h2")
            cluster.api.move_container("db", cluster.node("h1"))
            cluster.ctl("fence", "--confirm-off", cluster.node("h2"))
            wait_database(cluster, "h1")
        assert sql(cluster, "h1", "select h from t where n = 0") == "committed"
        cluster.api.delete_container("db")
        wait_until(lambda: not [c for c in cluster.api.container_states() if c["name"] == "db"], "container gone", 60)
        cluster.api.delete_dataset(dataset)
        wait_until(lambda: not os.listdir(cloud.facts["export"]), "the volume is deleted", 120)
    finally:
        cloud.close()
