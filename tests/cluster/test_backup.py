"""The store copied while the service runs, put back, and what the nodes do then."""

import os
import sqlite3
import threading
import time

import pytest

from volumes import create, delete, digest, fill, inside, is_mounted, state, volume, wait_reason, wait_settled
from lab import wait_until

HOSTS = ["h1", "h2", "h3"]


def backup(cluster, file, check=True):
    return cluster.run("control", "flocker-control", "--backup", file, check=check)


def left(cluster):
    """Files in the data directory that belong to no store."""
    names = set(os.listdir(inside(cluster, "control", "var/lib/flocker")))
    return sorted(names - {"store.sqlite", "store.sqlite-wal", "lock", "control.sock",
                     "acknowledged"})


def restore(cluster, file, *options):
    return cluster.run("control", "flocker-control", "--restore", file, *options)


def adopt(cluster, *hosts):
    for host in hosts:
        cluster.stop(host, "agent")
        cluster.run(host, "flocker-agent", "--adopt")
        cluster.start(host, "agent")


def refused(cluster, *words):
    """What flockerctl says when it does not do it."""
    with pytest.raises(AssertionError) as e:
        cluster.ctl(*words)
    return str(e.value)


def settle_store(cluster):
    """The operator's word, once all nodes have told what they have."""
    wait_until(lambda: not cluster.api.expect("GET", "/v1/adoption")["nodes_away"], "nodes that have told all", 30)
    assert "is believed from now on" in cluster.ctl("adopt")
    assert cluster.api.expect("GET", "/v1/adoption")["waiting"] is False
    assert "Nothing to do" in cluster.ctl("adopt")


class Storm(threading.Thread):
    """Creates datasets on a node that is not there, so that nothing but the store has work."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.made = []
        self.failed = None
        self.end = threading.Event()
        self.start()

    def run(self):
        try:
            while not self.end.is_set():
                self.made.append(self.cluster.api.create_dataset("00000000-0000-4000-8000-000000000001"))
        except Exception as e:  # pylint: disable=broad-except
            self.failed = e

    def stop(self):
        self.end.set()
        self.join()
        assert self.failed is None


def keys(path):
    """The datasets in a copy."""
    connection = sqlite3.connect(":memory:")
    with open(path, "rb") as f:  # SQLite follows links by name, which do not lead into a host
        image = bytearray(f.read())
    image[18:20] = b"\1\1"  # in memory there is no write-ahead log
    connection.deserialize(bytes(image))
    try:
        return {key for key, in connection.execute("SELECT key FROM dataset")}
    finally:
        connection.close()


def test_backup_in_a_storm(make_cluster):
    cluster = make_cluster(nodes=1)
    storm = Storm(cluster)
    try:
        for turn in range(3):
            wait_until(lambda n=10 * (turn + 1): len(storm.made) > n or storm.failed, "a storm", 30, 0.01)
            before = set(storm.made)
            said = backup(cluster, "/tmp/copy")
            copied = keys(inside(cluster, "control", "tmp/copy"))
            assert said.startswith("Backup /tmp/copy: store ")
            assert cluster.shell("control", "stat -c %a /tmp/copy") == "600\n"
            assert cluster.shell("control", "ls /tmp | grep copy") == "copy\n"
            assert before <= copied
            assert left(cluster) == []
    finally:
        storm.stop()
    # Nobody but root asks the running service.
    assert cluster.shell("control", "stat -c %a /var/lib/flocker/control.sock") == "600\n"
    # What a killed process left is cleared away; without a service the copy is made from the files.
    cluster.shell("control", "echo rest >/var/lib/flocker/backup-0123")
    cluster.stop("control", "control")
    backup(cluster, "/tmp/copy2")
    cluster.start("control", "control")
    wait_until(lambda: left(cluster) == [], "the service to clear away what was left", 10)
    wait_until(lambda: cluster.api.nodes(), "the service", 10)
    backup(cluster, "/tmp/copy3")
    sizes = cluster.shell("control", "stat -c %s /tmp/copy[23]")
    assert len(set(sizes.split())) == 1


def test_backup_refused(make_cluster):
    cluster = make_cluster(nodes=1)

    def refused(*words):
        done = cluster.shell("control", " ".join(["flocker-control", *words, "2>&1 || echo exit $?"]))
        assert done.endswith("exit 1\n"), done
        return done
    assert "No such file or directory" in refused("--backup", "/nonexistent/copy")
    assert left(cluster) == []
    assert "there is no store in /tmp" in refused("--data-path", "/tmp", "--backup", "/tmp/copy")
    cluster.shell("control", "mkdir /tmp/small; mount -t tmpfs -o size=8k tmpfs /tmp/small")
    assert "No space left" in refused("--backup", "/tmp/small/copy")
    assert cluster.run("control", "ls", "-A", "/tmp/small") == ""
    backup(cluster, "/tmp/copy")
    assert "used by another process" in refused("--restore", "/tmp/copy", "--replace")
    assert "not a Flocker store" in refused("--data-path", "/tmp/other", "--restore", "/etc/passwd")
    assert "cannot be used together" in refused("--restore", "/tmp/copy", "--backup", "/tmp/copy")
    cluster.stop("control", "control")
    assert "there is a store in" in refused("--restore", "/tmp/copy")
    cluster.start("control", "control")


@pytest.mark.deadline(300)
def test_restore_of_an_older_copy(make_cluster):
    """A dataset moved after the backup, another was first made after it: the nodes take no orders, then, told to obey,
    lead the store to their data; at the end all is where the old configuration wants it, with the newest bytes."""
    cluster = make_cluster(nodes=3)
    moved = create(cluster, "h1", maximum_size=1 << 30)
    still = create(cluster, "h3", maximum_size=1 << 30)
    for dataset, host in ((moved, "h1"), (still, "h3")):
        fill(volume(cluster, host, dataset))
    gone = create(cluster, "h2", maximum_size=1 << 30)
    wait_settled(cluster, moved, "h1", ["h2", "h3"])
    wait_settled(cluster, gone, "h2", ["h1", "h3"])
    backup(cluster, "/tmp/copy")
    delete(cluster, gone, HOSTS)
    cluster.api.move_dataset(moved, cluster.node("h2"))
    wait_settled(cluster, moved, "h2", ["h1", "h3"])
    with open(volume(cluster, "h2", moved, "later"), "w", encoding="ascii") as f:
        f.write("written after the move\n")
    newer = create(cluster, "h1", maximum_size=1 << 30)
    fill(volume(cluster, "h1", newer))
    places = {moved: "h2", still: "h3", newer: "h1"}
    content = {dataset: digest(volume(cluster, host, dataset)) for dataset, host in places.items()}

    cluster.stop("control", "control")
    assert "is kept as" in restore(cluster, "/tmp/copy", "--replace")
    cluster.start("control", "control")
    cluster.wait_nodes(HOSTS)
    wait_reason(cluster, moved, "store-unknown")

    def untouched():
        for dataset, host in places.items():
            assert is_mounted(cluster, host, dataset)
            assert digest(volume(cluster, host, dataset)) == content[dataset]
    untouched()
    cluster.api.move_dataset(moved, cluster.node("h3"))  # nobody obeys
    time.sleep(2)
    wait_reason(cluster, moved, "store-unknown")
    cluster.api.move_dataset(moved, cluster.node("h1"))
    untouched()

    for host in HOSTS:
        cluster.stop(host, "agent")
        cluster.run(host, "flocker-agent", "--adopt")
        cluster.start(host, "agent")
    cluster.wait_nodes(HOSTS)
    settle_store(cluster)
    # The configuration of the copy wants it on h1; there it comes with what was written on h2.
    wait_settled(cluster, moved, "h1", ["h2", "h3"])
    wait_settled(cluster, still, "h3", ["h1", "h2"])
    assert digest(volume(cluster, "h1", moved)) == content[moved]
    assert digest(volume(cluster, "h3", still)) == content[still]
    # What was deleted meanwhile is wanted again, but nothing is made in its place.
    wait_reason(cluster, gone, "data-missing")
    delete(cluster, gone, HOSTS)
    # The store does not know the newest one: it stays as it is, and comes back when it is configured again.
    assert is_mounted(cluster, "h1", newer)
    cluster.api.create_dataset(cluster.node("h1"), dataset_id=newer, maximum_size=1 << 30)
    wait_until(lambda: state(cluster, newer)["reason"] is None, "the newest dataset without a reason", 30)
    assert digest(volume(cluster, "h1", newer)) == content[newer]
    cluster.api.move_dataset(newer, cluster.node("h2"))
    wait_settled(cluster, newer, "h2", ["h1", "h3"])
    assert digest(volume(cluster, "h2", newer)) == content[newer]


@pytest.mark.deadline(300)
def test_restore_while_a_node_is_away(make_cluster):
    """The copy says that nothing was ever written to a dataset; since then it was, on a node that is away now. Nobody else makes
    it until the operator says that all are back; the data come with the node."""
    cluster = make_cluster(nodes=2)
    unborn = cluster.api.create_dataset("00000000-0000-4000-8000-000000000001")
    backup(cluster, "/tmp/copy")
    cluster.api.move_dataset(unborn, cluster.node("h2"))
    cluster.wait_mounted(unborn, "h2")
    fill(volume(cluster, "h2", unborn))
    content = digest(volume(cluster, "h2", unborn))
    cluster.stop("control", "control")
    restore(cluster, "/tmp/copy", "--replace")
    cluster.stop("h2", "agent")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1"])
    cluster.api.move_dataset(unborn, cluster.node("h1"))
    wait_until(lambda: cluster.api.expect("GET", "/v1/adoption")["waiting"], "a store that waits", 10)
    adopt(cluster, "h1")
    cluster.wait_nodes(["h1"])
    text = wait_reason(cluster, unborn, "store-restored")
    assert "nothing was ever written" in text
    # One with an id that nobody can have is made at once; one whose id was named waits, too.
    other = create(cluster, "h1")
    named = cluster.api.create_dataset(cluster.node("h1"), dataset_id="c2b7e0d4-5a61-4f3b-9c88-13579bdf2468")
    wait_reason(cluster, named, "store-restored")
    time.sleep(1)
    assert not is_mounted(cluster, "h1", unborn) and not is_mounted(cluster, "h1", named)
    # A killed service still knows that it waits.
    cluster.kill("control", "control")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1"])
    wait_reason(cluster, unborn, "store-restored")
    cluster.run("h2", "flocker-agent", "--adopt")
    cluster.start("h2", "agent")
    wait_settled(cluster, unborn, "h1", ["h2"])
    assert digest(volume(cluster, "h1", unborn)) == content
    wait_reason(cluster, named, "store-restored")
    cluster.wait_nodes(["h1", "h2"])
    settle_store(cluster)
    cluster.wait_mounted(named, "h1")
    wait_settled(cluster, other, "h1", ["h2"])


@pytest.mark.deadline(300)
def test_adopt_what_the_store_knows_to_be_deleted(make_cluster):
    """A dataset that the copy knows to be deleted was made anew since: the operator says that it is deleted too."""
    cluster = make_cluster(nodes=2)
    dataset = create(cluster, "h1")
    delete(cluster, dataset, ["h1", "h2"])
    backup(cluster, "/tmp/copy")
    cluster.api.expect("DELETE", "/v1/configuration/datasets/" + dataset + "?purge=true")
    wait_until(lambda: dataset not in {d["dataset_id"] for d in cluster.api.expect("GET", "/v1/configuration/datasets")}, "it forgotten", 20)
    cluster.api.create_dataset(cluster.node("h1"), dataset_id=dataset)
    cluster.wait_mounted(dataset, "h1")
    cluster.stop("control", "control")
    restore(cluster, "/tmp/copy", "--replace")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1", "h2"])
    said = refused(cluster, "adopt")
    assert cluster.node("h1") in said and "anyway" in said
    adopt(cluster, "h1", "h2")
    cluster.wait_nodes(["h1", "h2"])
    settle_store(cluster)
    wait_reason(cluster, dataset, "store-unknown")
    assert is_mounted(cluster, "h1", dataset)
    assert "has nothing of the dataset" in refused(cluster, "adopt", dataset, "-n", cluster.node("h2"))
    assert "must specify --node" in refused(cluster, "adopt", dataset)
    assert "destroyed too" in cluster.ctl("adopt", dataset, "-n", cluster.node("h1"))
    wait_until(lambda: not is_mounted(cluster, "h1", dataset), "it gone", 20)
    delete(cluster, dataset, ["h1", "h2"])
    healthy = create(cluster, "h1")
    assert "knows where the data" in refused(cluster, "adopt", healthy, "-n", cluster.node("h1"))
