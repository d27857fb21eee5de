"""Certificates that are renewed while the programs run: noticed, used for new connections, harmless when broken."""

import os
import shutil
import ssl

import pytest

from cli_programs import ok
from lab import wait_until
from volumes import create, delete, wait_settled

CLUSTER = {"nodes": 2, "backend": "btrfs"}
HOSTS = ["h1", "h2"]


def shown(cluster):
    """The certificate that the REST port shows, in DER."""
    connection = cluster.api.session()
    try:
        connection.connect()
        return connection.sock.getpeercert(binary_form=True)
    finally:
        connection.close()


def der(path):
    with open(path, encoding="ascii") as f:
        return ssl.PEM_cert_to_DER_cert(f.read())


def files(cluster, host):
    """The certificate's file, as the host and this process see it."""
    name = "control-service" if host == "control" else "node"
    return cluster.path(host, "etc", name + ".crt")


def ca(cluster):
    return cluster.path("ca")


def log(cluster, host):
    with open(cluster.path(host, "log", "control" if host == "control" else "agent"), encoding="utf-8") as f:
        return f.read()


def wait_log(cluster, host, text, since, timeout=20):
    wait_until(lambda: text in log(cluster, host)[since:], f"'{text}' in the log of {host}", timeout, 0.05)


def sessions(cluster):
    return log(cluster, "control").count(" connected\n")


@pytest.mark.parametrize("options", [(), ("--new-key",)], ids=["same-key", "new-key"])
def test_renewed(cluster, options):
    before, since = sessions(cluster), {h: len(log(cluster, h)) for h in ["control", *HOSTS]}
    old = shown(cluster)
    assert old == der(files(cluster, "control"))
    kept = cluster.api.session()  # an open connection stays
    kept.request("GET", "/v1/version")
    kept.getresponse().read()
    for host in ["control", *HOSTS]:
        ok("flocker-ca", "renew", "-i", ca(cluster), "--days", "99", *options, files(cluster, host))
    for host in ["control", *HOSTS]:
        wait_log(cluster, host, "was read again; new connections use it", since[host])
    assert shown(cluster) == der(files(cluster, "control")) != old
    kept.request("GET", "/v1/version")
    assert kept.getresponse().status == 200
    assert kept.sock.getpeercert(binary_form=True) == old
    kept.close()
    assert sessions(cluster) == before  # agents' sessions stay too
    # Everything goes on, between the nodes too, with new connections of all kinds.
    dataset = create(cluster, "h1", maximum_size=1 << 30)
    cluster.api.move_dataset(dataset, cluster.node("h2"))
    wait_settled(cluster, dataset, "h2", ["h1"])
    cluster.partition("h1")
    wait_until(lambda: len(cluster.api.nodes()) == 1, "h1 gone", 60)
    cluster.heal("h1")
    cluster.wait_nodes(HOSTS)
    delete(cluster, dataset, HOSTS)


@pytest.mark.parametrize("host", ["control", "h1"])
def test_broken(cluster, host):
    """What cannot be used is named, and the old certificate stays in use."""
    path = files(cluster, host)
    old = shown(cluster)
    shutil.copy2(path, path + ".good")
    with open(path, encoding="ascii") as f:
        good = f.read()

    def refused(text, says):
        since = len(log(cluster, host))
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        wait_log(cluster, host, says, since)
        wait_log(cluster, host, "what was read before stays in use", since)
        assert shown(cluster) == old
        cluster.wait_nodes(HOSTS)
    try:
        refused("nonsense", "does not hold a certificate in PEM form")
        refused(good[:len(good) // 2], "does not hold a certificate in PEM form")
        with open(os.path.join(ca(cluster), "cluster.crt"), encoding="ascii") as f:
            refused(f.read(), "does not belong to the certificate")
        since = len(log(cluster, host))
        os.unlink(path)
        cluster.shell(host, "kill -HUP $(pgrep -x flocker-control || pgrep -x flocker-agent)")
        wait_log(cluster, host, "No such file or directory", since)
        # Somebody else's certificate, with its key.
        made = ok("flocker-ca", "create-node-certificate", "--key-type=ec", "-i", ca(cluster), "-o", ca(cluster))
        other = os.path.join(ca(cluster), made.split()[1].removesuffix(".crt."))
        key = path.removesuffix("crt") + "key"
        shutil.copy2(key, key + ".good")
        since = len(log(cluster, host))
        shutil.copy2(other + ".key", key)
        shutil.copy2(other + ".crt", path)
        wait_log(cluster, host, "restart it if that is meant", since)
        assert shown(cluster) == old
        os.replace(key + ".good", key)
    finally:
        since = len(log(cluster, host))
        os.replace(path + ".good", path)
    wait_log(cluster, host, "was read again; new connections use it", since)
    cluster.wait_nodes(HOSTS)


def test_renewed_authority(cluster):
    """A new certificate of the same authority: old and new certificates of everyone else fit it."""
    top = os.path.join(ca(cluster), "cluster.crt")
    since = {h: len(log(cluster, h)) for h in ["control", *HOSTS]}
    ok("flocker-ca", "renew", "-i", ca(cluster), top)
    for host in ["control", *HOSTS]:
        shutil.copy2(top, cluster.path(host, "etc", "cluster.crt"))
    for host in ["control", *HOSTS]:
        wait_log(cluster, host, "was read again; new connections use it", since[host])
    assert cluster.api.expect("GET", "/v1/version")  # this client still trusts the old one
    cluster.partition("h1")
    wait_until(lambda: len(cluster.api.nodes()) == 1, "h1 gone", 60)
    cluster.heal("h1")
    cluster.wait_nodes(HOSTS)
