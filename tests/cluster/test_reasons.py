"""Every reason is provoked for real; what a user then sees names the thing, and goes away by itself with its cause."""

import json
import os
import time

import pytest

from lab import wait_until

CLUSTER = {"nodes": 3, "docker": True, "images": ["busybox"]}
IMAGE = "flocker-lab/busybox:1"
RUN_ON = "trap 'exit 0' TERM; sleep 100000 & wait"  # a plain sleep as PID 1 would not hear the signal
SLEEP = ["sh", "-c", RUN_ON]


class Watched:
    """One dataset or container, and what is said about it."""

    def __init__(self, cluster, what, key):
        self.cluster = cluster
        self.path = f"/v1/state/{what}/{key}"
        self.key = key
        self.began = time.time()

    def reason(self):
        return self.cluster.api.expect("GET", self.path)["reason"]

    def is_blocked_by(self, code, *words, timeout=30.0):
        """Waits for the code; the API and flockerctl both say it, with all the words."""
        def there():
            reason = self.reason()
            return reason if reason and reason["code"] == code and all(w in reason["text"] for w in words) else None

        try:
            reason = wait_until(there, f"{self.path}: {code} with {words}", timeout, 0.05)
        except AssertionError as e:
            raise AssertionError(f"{e}; {self.reason()}") from None
        assert self.began - 2 <= reason["since"] <= time.time() + 1, reason
        assert reason["next_try"] is None or reason["next_try"] > self.began, reason
        assert reason["advice"]
        told = self.cluster.ctl("why", self.key)
        assert f"{code}: " in told and reason["advice"] in told, told
        for word in words:
            assert word in told, told
        return reason

    def is_free(self, timeout=30.0):
        wait_until(lambda: self.reason() is None, f"{self.path} has no reason any more", timeout, 0.05)

    def keeps(self, code, seconds):
        """The code does not flicker, and its time stands."""
        first = self.reason()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = self.reason()
            assert now and now["code"] == code and now["since"] == first["since"], (first, now)
            time.sleep(0.05)


@pytest.fixture(name="dataset")
def _dataset(cluster):
    """Makes datasets, mounted on the host, and removes them (on a healthy cluster) at the end."""
    made = []

    def make(host, mounted=True):
        made.append(cluster.api.create_dataset(cluster.node(host)))
        if mounted:
            cluster.wait_mounted(made[-1], host)
        return Watched(cluster, "datasets", made[-1])
    yield make
    for one in made:
        cluster.api.call("DELETE", f"/v1/configuration/datasets/{one}")
    for one in made:
        cluster.wait_gone(one)


@pytest.fixture(name="container")
def _container(cluster, dataset):  # `dataset` only for the order: containers go first
    made = []

    def make(host, name, image=IMAGE, **settings):
        made.append(name)
        cluster.api.create_container(cluster.node(host), name, image, **{"command_line": SLEEP, **settings})
        return Watched(cluster, "containers", name)
    yield make
    for name in made:
        cluster.api.call("DELETE", f"/v1/configuration/containers/{name}")
    wait_until(lambda: not {c["name"] for c in cluster.api.container_states()} & set(made), "containers gone")


def on_dataset(watched):
    return [{"dataset_id": watched.key, "mountpoint": "/data"}]


class Stopped:
    """A process of a host is away for the length of a `with`."""

    def __init__(self, cluster, host, process="agent"):
        self.cluster, self.host, self.process = cluster, host, process

    def __enter__(self):
        self.cluster.stop(self.host, self.process)
        return self

    def __exit__(self, *_):
        self.cluster.start(self.host, self.process)
        if self.process == "agent":
            self.cluster.wait_nodes(["h1", "h2", "h3"])


class Configured:
    """Other sections of the host's agent.yml for the length of a `with`."""

    def __init__(self, cluster, host, **sections):
        self.cluster, self.host, self.sections = cluster, host, sections
        self.path = cluster.path(host, "etc", "agent.yml")

    def write(self, text):
        with Stopped(self.cluster, self.host), open(self.path, "w", encoding="utf-8") as f:
            f.write(text)
            self.cluster.shell(self.host, "umount /flocker/*-* 2>/dev/null || true; "
                                          "umount /var/lib/flocker/btrfs-pool 2>/dev/null || true")

    def __enter__(self):
        with open(self.path, encoding="utf-8") as f:
            self.before = f.read()
        self.write(json.dumps({**json.loads(self.before), **self.sections}))
        return self

    def __exit__(self, *_):
        self.write(self.before)


class Filtered:
    """An iptables rule on a host for the length of a `with`."""

    def __init__(self, cluster, host, *rule):
        self.cluster, self.host, self.rule = cluster, host, rule

    def __enter__(self):
        table, chain, *rest = self.rule
        self.cluster.run(self.host, "iptables", "-w", "-t", table, "-I", chain, *rest)
        return self

    def __exit__(self, *_):
        table, chain, *rest = self.rule
        self.cluster.run(self.host, "iptables", "-w", "-t", table, "-D", chain, *rest)


def test_node_disconnected(cluster, dataset, container):
    d = dataset("h3")
    c = container("h3", "away")
    cluster.wait_container("away", "h3")
    with Stopped(cluster, "h3"):
        d.is_blocked_by("node-disconnected", cluster.node("h3"), timeout=5)
        c.is_blocked_by("node-disconnected", cluster.node("h3"), timeout=5)
        d.keeps("node-disconnected", 0.5)
    d.is_free()
    c.is_free()


def test_owner_disconnected(cluster, dataset):
    d = dataset("h3")
    with Stopped(cluster, "h3"):
        cluster.api.move_dataset(d.key, cluster.node("h1"))
        d.is_blocked_by("owner-disconnected", cluster.node("h3"))
    cluster.wait_mounted(d.key, "h1")
    d.is_free()


def test_destination_disconnected(cluster, dataset):
    d = dataset("h1")
    with Stopped(cluster, "h3"):
        cluster.api.move_dataset(d.key, cluster.node("h3"))
        d.is_blocked_by("destination-disconnected", cluster.node("h3"))
    cluster.wait_mounted(d.key, "h3")
    d.is_free()


def test_waiting_for_holders(cluster, dataset):
    d = dataset("h3")
    with Stopped(cluster, "h3"):
        cluster.api.delete_dataset(d.key)
        d.is_blocked_by("waiting-for-holders", cluster.node("h3"))
    cluster.wait_gone(d.key)
    wait_until(lambda: cluster.api.call("GET", d.path).status == 404 or d.reason() is None, "no reason any more")


def test_lease_held(cluster, dataset):
    d = dataset("h1")
    cluster.api.acquire_lease(d.key, cluster.node("h1"))
    cluster.api.move_dataset(d.key, cluster.node("h2"))
    d.is_blocked_by("lease-held", cluster.node("h1"), "does not expire")
    d.keeps("lease-held", 0.5)
    cluster.api.release_lease(d.key)
    cluster.wait_mounted(d.key, "h2")
    d.is_free()


def test_in_use_by_container(cluster, dataset, container):
    d = dataset("h1")
    container("h1", "user", volumes=on_dataset(d))
    cluster.wait_container("user", "h1")
    cluster.api.delete_dataset(d.key)
    d.is_blocked_by("in-use-by-container", "user")
    cluster.api.delete_container("user")
    cluster.wait_gone(d.key)


def test_volume_busy(cluster, dataset):
    d = dataset("h1")
    pid = cluster.shell("h1", f"cd /flocker/{d.key}; setsid sleep 1000 >file 2>&1 </dev/null & echo $!").strip()
    cluster.api.move_dataset(d.key, cluster.node("h2"))
    d.is_blocked_by("volume-busy", pid, "sleep")
    d.keeps("volume-busy", 1)
    cluster.run("h1", "kill", pid)
    cluster.wait_mounted(d.key, "h2", timeout=60)
    d.is_free()


def test_data_missing(cluster, dataset, container):
    """Also waiting-for-dataset: the container tells the dataset's reason. The data come back, and all goes on."""
    d = dataset("h1")
    c = container("h1", "orphan", volumes=on_dataset(d), restart_policy={"name": "always"})
    cluster.wait_container("orphan", "h1")
    pool = "/var/lib/flocker/btrfs-pool/flocker"
    with Stopped(cluster, "h1"):
        cluster.shell("h1", "docker rm -f $(docker ps -q)")
        cluster.shell("h1", f"umount /flocker/{d.key}; mv {pool}/{d.key}/vol {pool}/../kept")
    d.is_blocked_by("data-missing", cluster.node("h1"))
    c.is_blocked_by("waiting-for-dataset", d.key, "data-missing")
    d.keeps("data-missing", 1)
    cluster.shell("h1", f"mv {pool}/../kept {pool}/{d.key}/vol")
    d.is_free()
    cluster.wait_container("orphan", "h1")
    c.is_free()


def test_storage_missing(cluster, dataset):
    """A pool that is not there is never replaced by an empty one."""
    d = dataset("h3")
    cluster.shell("h3", f"echo precious >/flocker/{d.key}/file; sync")
    pool = cluster.path("h3", "pool.img")
    cluster.kill("h3")
    os.rename(pool, pool + ".away")
    cluster.start("h3")
    d.is_blocked_by("storage-missing", cluster.node("h3"), pool)
    d.keeps("storage-missing", 2)
    assert not os.path.exists(pool)
    os.rename(pool + ".away", pool)
    cluster.wait_mounted(d.key, "h3")
    d.is_free()
    assert cluster.run("h3", "cat", f"/flocker/{d.key}/file") == "precious\n"


def test_no_space(cluster, dataset):
    d = dataset("h1")
    cluster.shell("h1", f"head -c 200M /dev/urandom >/flocker/{d.key}/file")
    pool = cluster.path("h3", "small.img")
    with Configured(cluster, "h3", dataset={"backend": "btrfs", "pool": pool, "pool_size": "160MiB"}):
        cluster.api.move_dataset(d.key, cluster.node("h3"))
        d.is_blocked_by("no-space", cluster.node("h3"), timeout=60)
        assert cluster.api.dataset_state(d.key)["primary"] == cluster.node("h1")
        cluster.shell("h1", f"rm /flocker/{d.key}/file")
        cluster.shell("h3", f"truncate -s 1G {pool}; losetup -c $(losetup -j {pool} -O NAME -n); "
                            "btrfs filesystem resize max /var/lib/flocker/btrfs-pool")
        cluster.wait_mounted(d.key, "h3", timeout=90)
        d.is_free()
        cluster.api.move_dataset(d.key, cluster.node("h1"))
        cluster.wait_mounted(d.key, "h1", timeout=90)
        d.is_free()
        cluster.shell("h3", "sync")
    cluster.shell("h3", f"rm {pool}")


def test_backend_mismatch(cluster, dataset):
    d = dataset("h1")
    with Configured(cluster, "h3", dataset={"backend": "fake"}):
        cluster.api.move_dataset(d.key, cluster.node("h3"))
        d.is_blocked_by("backend-mismatch", "btrfs", "fake", cluster.node("h3"))
    cluster.wait_mounted(d.key, "h3")
    d.is_free()


def test_peer_unreachable(cluster, dataset, container):
    """Also waiting-for-dataset: the container tells the dataset's reason."""
    d = dataset("h1")
    c = container("h1", "traveller", volumes=on_dataset(d))
    cluster.wait_container("traveller", "h1")
    with Filtered(cluster, "h2", "filter", "INPUT", "-p", "tcp", "--dport", "4525", "-j", "REJECT", "--reject-with",
                  "tcp-reset"):
        cluster.api.move_container("traveller", cluster.node("h2"))
        d.is_blocked_by("peer-unreachable", cluster.address("h2"))
        c.is_blocked_by("waiting-for-dataset", d.key, "peer-unreachable")
        d.keeps("peer-unreachable", 1)
    cluster.wait_container("traveller", "h2")
    d.is_free()
    c.is_free()


def test_transfer_failed(cluster, dataset):
    """Somebody else answers where the destination's mover should be."""
    d = dataset("h1")
    with Filtered(cluster, "h1", "nat", "OUTPUT", "-p", "tcp", "-d", cluster.address("h2"), "--dport", "4525", "-j",
                  "DNAT", "--to-destination", cluster.variables["FLOCKER_CONTROL_SERVICE"] + ":4524"):
        cluster.api.move_dataset(d.key, cluster.node("h2"))
        d.is_blocked_by("transfer-failed", cluster.address("h2"))
        d.keeps("transfer-failed", 1)
    cluster.wait_mounted(d.key, "h2")
    d.is_free()


def test_copying(cluster, dataset):
    d = dataset("h1")
    cluster.shell("h1", f"head -c 3M /dev/urandom >/flocker/{d.key}/file")
    cluster.run("h1", "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "4mbit", "burst", "16k", "latency",
                "200ms")
    try:
        cluster.api.move_dataset(d.key, cluster.node("h2"))
        d.is_blocked_by("copying", cluster.node("h2"))
        wait_until(lambda: cluster.api.expect("GET", d.path)["transfer"]["bytes_sent"] > 500000, "progress")
    finally:
        cluster.run("h1", "tc", "qdisc", "del", "dev", "eth0", "root")
    cluster.wait_mounted(d.key, "h2")
    d.is_free()


def test_changes_too_fast(cluster, dataset):
    """Written as fast as the link can carry: it stays where it is until the writer rests."""
    with Configured(cluster, "h1", move={"rounds": 3, "small-ms": 300, "max-pause-ms": 600}):
        d = dataset("h1")
        writes = f"/flocker/{d.key}/writes"
        # Not truncated: a snapshot of the moment after would hold nothing, and its increment would be small.
        cluster.shell("h1", f"touch {writes}; (while [ -e {writes} ]; do "
                      f"dd if=/dev/urandom of={writes}.data bs=2M count=1 conv=notrunc iflag=fullblock; sleep 0.1; done) >/dev/null 2>&1 &")
        cluster.run("h1", "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8mbit", "burst", "16k", "latency", "200ms")
        try:
            cluster.api.move_dataset(d.key, cluster.node("h2"))
            d.is_blocked_by("changes-too-fast", "the pause of a move may be 600 ms", timeout=60)
            d.keeps("changes-too-fast", 1)
            assert cluster.api.dataset_state(d.key)["primary"] == cluster.node("h1")
        finally:
            cluster.run("h1", "tc", "qdisc", "del", "dev", "eth0", "root")
            cluster.shell("h1", f"rm -f {writes}")
        cluster.wait_mounted(d.key, "h2", timeout=60)
        d.is_free()


REGISTRY = """
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while os.path.exists('/tmp/registry-waits'):
            time.sleep(0.05)
        found = self.path == '/v2/'
        body = b'{}' if found else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        self.send_response(200 if found else 404)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)
    do_HEAD = do_GET
http.server.ThreadingHTTPServer(('127.0.0.1', 5000), Handler).serve_forever()
"""


def test_images(cluster, container):
    """waiting-for-image, image-missing; loading the image ends it."""
    name = "127.0.0.1:5000/lab/later:1"
    registry = cluster.run("h1", "sh", "-ec", "touch /tmp/registry-waits; setsid /usr/bin/python3 -c \"$0\" >/tmp/registry "
                           "2>&1 </dev/null & echo $!", REGISTRY).strip()
    try:
        cluster.shell("h1", "for i in $(seq 100); do ss -ltn | grep -q :5000 && exit; sleep 0.1; done; exit 1")
        c = container("h1", "picture", image=name)
        c.is_blocked_by("waiting-for-image", name)
        c.keeps("waiting-for-image", 1)
        cluster.run("h1", "rm", "/tmp/registry-waits")
        c.is_blocked_by("image-missing", name)
        c.keeps("image-missing", 1)
        cluster.run("h1", "docker", "tag", IMAGE, name)
        cluster.wait_container("picture", "h1")
        c.is_free()
    finally:
        cluster.run("h1", "kill", registry)
        cluster.run("h1", "docker", "rmi", "-f", name, check=False)


def test_image_pull_failed(cluster, container):
    """Nobody listens at the registry."""
    name = "127.0.0.1:5001/lab/unreachable:1"
    c = container("h1", "unreachable", image=name)
    c.is_blocked_by("image-pull-failed", name, "refused")
    c.keeps("image-pull-failed", 1)
    cluster.run("h1", "docker", "tag", IMAGE, name)
    cluster.wait_container("unreachable", "h1")
    c.is_free()
    cluster.api.delete_container("unreachable")


def test_port_in_use(cluster, container):
    pid = cluster.shell("h1", "setsid /usr/bin/python3 -m http.server 8099 >/dev/null 2>&1 </dev/null & echo $!")
    cluster.shell("h1", "for i in $(seq 100); do ss -ltn | grep -q :8099 && exit; sleep 0.1; done; exit 1")
    c = container("h1", "harbour", ports=[{"internal": 80, "external": 8099}])
    c.is_blocked_by("port-in-use", "harbour", "8099")
    c.keeps("port-in-use", 1)
    cluster.run("h1", "kill", pid.strip())
    cluster.wait_container("harbour", "h1")
    c.is_free()


def test_start_failed(cluster, container):
    c = container("h1", "typo", command_line=["/no/such/program"])
    c.is_blocked_by("start-failed", "typo", "/no/such/program")
    c.keeps("start-failed", 1)
    cluster.api.delete_container("typo")
    wait_until(lambda: cluster.api.call("GET", c.path).status == 404, "it is gone")
    container("h1", "typo")
    cluster.wait_container("typo", "h1")
    c.is_free()


def test_container_exited(cluster, container):
    c = container("h1", "brief", command_line=["sh", "-c", "echo that was all; exit 7"])
    c.is_blocked_by("container-exited", "brief", "7", "that was all")
    c.keeps("container-exited", 1)


def test_waiting_for_dependency(cluster, container):
    first = container("h1", "first", healthcheck={"test": ["CMD", "test", "-e", "/tmp/well"], "interval": 0.5, "timeout": 5})
    second = container("h2", "second", depends_on=[{"name": "first", "condition": "healthy"}])
    second.is_blocked_by("waiting-for-dependency", "second depends on container first")
    cluster.wait_container("first", "h1")
    second.keeps("waiting-for-dependency", 1)
    cluster.run("h1", "docker", "exec", "flocker--first", "touch", "/tmp/well")
    cluster.wait_container("second", "h2")
    first.is_free()
    second.is_free()


def test_crash_loop(cluster, dataset, container):
    """The reason stands while it is started again and again, and goes once it has run for a while."""
    d = dataset("h1")
    c = container("h1", "hiccup", volumes=on_dataset(d), restart_policy={"name": "always"},
                  command_line=["sh", "-c", "test -e /data/ok || { sleep 0.2; exit 3; }; " + RUN_ON])
    c.is_blocked_by("crash-loop", "hiccup", "status 3", "3 exits")
    c.keeps("crash-loop", 3)
    cluster.shell("h1", f"touch /flocker/{d.key}/ok")
    cluster.wait_container("hiccup", "h1")
    c.is_free(40)


def test_name_taken(cluster, container):
    cluster.run("h1", "docker", "create", "--name", "flocker--namesake", IMAGE, "true")
    c = container("h1", "namesake")
    c.is_blocked_by("name-taken", "namesake")
    c.keeps("name-taken", 1)
    cluster.run("h1", "docker", "rm", "flocker--namesake")
    cluster.wait_container("namesake", "h1")
    c.is_free()


def test_engine_unavailable(cluster, dataset, container):
    """A dataset that cannot leave because its container cannot be stopped says so too."""
    d = dataset("h2")
    c = container("h2", "engineless", volumes=on_dataset(d))
    cluster.wait_container("engineless", "h2")
    cluster.kill("h2", "docker")
    try:
        c.is_blocked_by("engine-unavailable", "docker.sock")
        c.keeps("engine-unavailable", 1)
        cluster.api.move_container("engineless", cluster.node("h1"))
        d.is_blocked_by("engine-unavailable", "engineless")
    finally:
        cluster.start("h2", "docker")
    cluster.wait_container("engineless", "h1", timeout=60)
    c.is_free()
    d.is_free()


def test_cannot_move(make_cluster):
    cluster = make_cluster(nodes=2, backend="loopback")
    d = Watched(cluster, "datasets", cluster.api.create_dataset(cluster.node("h1")))
    cluster.wait_mounted(d.key, "h1")
    path = cluster.path("h2", "etc", "agent.yml")
    with open(path, encoding="utf-8") as f:
        before = f.read()
    other = json.loads(before)
    other["dataset"]["root_path"] = cluster.path("h2", "elsewhere")
    os.mkdir(cluster.path("h2", "elsewhere"))

    def configure(text):
        cluster.stop("h2", "agent")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        cluster.start("h2", "agent")
    configure(json.dumps(other))
    cluster.api.move_dataset(d.key, cluster.node("h2"))
    d.is_blocked_by("cannot-move", cluster.node("h2"))
    configure(before)
    cluster.wait_mounted(d.key, "h2")
    d.is_free()


def test_store_unknown(make_cluster):
    """The control service has lost its store: the nodes obey it only after --adopt."""
    cluster = make_cluster(nodes=1)
    lost = cluster.api.create_dataset(cluster.node("h1"))
    cluster.wait_mounted(lost, "h1")
    cluster.shell("h1", f"echo precious >/flocker/{lost}/file")
    cluster.stop("control", "control")
    cluster.shell("control", "mkdir /tmp/old; mv /var/lib/flocker/* /tmp/old")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1"])
    d = Watched(cluster, "datasets", cluster.api.create_dataset(cluster.node("h1")))
    d.is_blocked_by("store-unknown", cluster.node("h1"))
    d.keeps("store-unknown", 1)
    assert cluster.run("h1", "cat", f"/flocker/{lost}/file") == "precious\n"
    cluster.stop("h1", "agent")
    cluster.run("h1", "flocker-agent", "--adopt")
    cluster.start("h1", "agent")
    cluster.wait_mounted(d.key, "h1")
    d.is_free()
    assert cluster.run("h1", "cat", f"/flocker/{lost}/file") == "precious\n"


def test_store_restored(make_cluster):
    """The store was put back; by the copy nothing was ever written to a dataset, which a node that is away may know better."""
    cluster = make_cluster(nodes=1)
    nobody = "00000000-0000-4000-8000-000000000001"
    d = Watched(cluster, "datasets", cluster.api.create_dataset(nobody))
    cluster.run("control", "flocker-control", "--backup", "/tmp/copy")
    cluster.stop("control", "control")
    cluster.run("control", "flocker-control", "--restore", "/tmp/copy", "--replace")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1"])
    d.is_blocked_by("store-restored", nobody)
    cluster.api.move_dataset(d.key, cluster.node("h1"))
    d.keeps("store-restored", 1)
    cluster.ctl("adopt")
    cluster.wait_mounted(d.key, "h1")
    d.is_free()


def test_store_failed(make_cluster):
    """The control service's disk is full just when a node comes that a dataset waits for."""
    cluster = make_cluster(nodes=1)
    cluster.stop("control", "control")
    cluster.shell("control", "cp -a /var/lib/flocker /tmp/old; mount -t tmpfs -o size=4m tmpfs /var/lib/flocker; "
                             "cp -a /tmp/old/. /var/lib/flocker")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1"])
    cluster.stop("h1", "agent")
    wait_until(lambda: cluster.api.nodes() == [], "h1 is not listed")
    d = Watched(cluster, "datasets", cluster.api.create_dataset(cluster.node("h1")))
    d.is_blocked_by("node-disconnected", cluster.node("h1"))
    cluster.shell("control", "dd if=/dev/zero of=/var/lib/flocker/filler bs=4096 2>/dev/null || true")
    cluster.start("h1", "agent")
    d.is_blocked_by("store-failed", "full")
    d.keeps("store-failed", 2)
    cluster.run("control", "rm", "/var/lib/flocker/filler")
    cluster.wait_mounted(d.key, "h1")
    d.is_free()
