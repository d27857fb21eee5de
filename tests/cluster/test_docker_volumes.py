"""Docker volumes that follow their containers: `docker` itself on every host, and the socket as dvdcli uses it."""

import concurrent.futures
import json
import re
import time

import pytest

from lab import holds, wait_until
from plugin_client import HOSTS, IMAGE, SLEEP, configure, docker, fails, in_host, plugin, seconds

CLUSTER = {"nodes": 3, "backend": "btrfs", "docker": True, "images": ["busybox"], "options": ["--live-restore"]}
WAIT = 10  # of agent.yml here; a busy machine needs some of it for a move
UNUSED = 8


@pytest.fixture(scope="module", autouse=True)
def settings(cluster):
    configure(cluster, HOSTS, wait=WAIT, release_unused=UNUSED, default_size="128M")


def with_volume(volume, *options):
    return ["run", "--network", "none", "--volume-driver", "flocker", "-v", f"{volume}:/data", *options]


def run(cluster, host, volume, script):
    return docker(cluster, host, *with_volume(volume, "--rm"), IMAGE, "sh", "-ec", script)


def run_fails(cluster, host, volume):
    return fails(cluster, host, *with_volume(volume, "--rm"), IMAGE, "true")


def start(cluster, host, volume, name, *options):
    docker(cluster, host, *with_volume(volume, "-d", "--name", name, *options), IMAGE, *SLEEP)


def inspect(cluster, host, volume):
    return json.loads(docker(cluster, host, "volume", "inspect", volume))[0]


def names(cluster, host):
    return set(docker(cluster, host, "volume", "ls", "-q", "-f", "driver=flocker").split())


def dataset_of(cluster, volume):
    found = [d for d in cluster.api.datasets() if d["metadata"].get("name") == volume and not d["deleted"]]
    assert len(found) == 1, found
    return found[0]["dataset_id"]


def leases(cluster):
    return {lease["dataset_id"]: lease["node_uuid"] for lease in cluster.api.leases()}


def no_lease(cluster, volume):
    dataset = dataset_of(cluster, volume)
    wait_until(lambda: dataset not in leases(cluster), f"no lease of {volume}")


def remove(cluster, volume, host="h1"):
    docker(cluster, host, "volume", "rm", volume)
    wait_until(lambda: volume not in names(cluster, host), f"{volume} is gone from the list")


def test_follows_its_container(cluster):
    docker(cluster, "h1", "volume", "create", "-d", "flocker", "-o", "size=256M", "-o", "metadata.team=red", "follow")
    docker(cluster, "h2", "volume", "create", "-d", "flocker", "follow")  # there already, as Swarm would ask
    metadata = [d["metadata"] for d in cluster.api.datasets() if d["metadata"].get("name") == "follow"]
    assert metadata == [{"name": "follow", "maximum_size": str(256 << 20), "team": "red"}]
    for host in HOSTS:
        wait_until(lambda h=host: "follow" in names(cluster, h), f"{host} lists it")
    run(cluster, "h1", "follow", "echo one >/data/file; chmod 640 /data/file")
    seen = inspect(cluster, "h1", "follow")
    dataset = dataset_of(cluster, "follow")
    assert seen["Driver"] == "flocker" and seen["Scope"] == "global" and seen["Mountpoint"] == f"/flocker/{dataset}"
    assert seen["Status"]["dataset_id"] == dataset and seen["Status"]["node"] == cluster.node("h1")
    assert seen["Status"]["maximum_size"] == 256 << 20
    assert run(cluster, "h2", "follow", "cat /data/file; stat -c %a /data/file; echo two >>/data/file") == "one\n640"
    assert run(cluster, "h3", "follow", "cat /data/file") == "one\ntwo"
    assert run(cluster, "h1", "follow", "cat /data/file") == "one\ntwo"
    no_lease(cluster, "follow")
    remove(cluster, "follow", "h2")
    cluster.wait_gone(dataset)
    assert "follow" not in names(cluster, "h1")


def test_bad_options(cluster):
    for option, word in (("size=10X", "10X"), ("size=1.5GB", "whole number"), ("sice=1G", "there are size, profile, and metadata.KEY"),
                         ("size=1M", "at least 64M")):
        assert word in fails(cluster, "h1", "volume", "create", "-d", "flocker", "-o", option, "bad")
    assert all(d["metadata"].get("name") != "bad" for d in cluster.api.datasets())


def test_in_use_elsewhere(cluster):
    start(cluster, "h1", "held", "holder")
    begun = time.monotonic()
    said = run_fails(cluster, "h2", "held")
    assert WAIT <= time.monotonic() - begun < WAIT + 15
    assert cluster.node("h1")[:8] in said and cluster.address("h1") in said, said
    assert "h" in inspect(cluster, "h2", "held")["Status"]["in_use_by"]
    for host in HOSTS:
        refused = plugin(cluster, host).error("Remove", Name="held")
        assert cluster.node("h1")[:8] in refused, refused
    assert docker(cluster, "h1", "exec", "holder", "sh", "-c", "echo alive >/data/x; cat /data/x") == "alive"
    # It waits, and comes as soon as the volume is free.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        later = pool.submit(run, cluster, "h2", "held", "cat /data/x")
        time.sleep(WAIT / 4)
        docker(cluster, "h1", "rm", "-f", "holder")
        assert later.result() == "alive"
    # A second container on the same host shares it; it is free when both are gone.
    start(cluster, "h3", "held", "first")
    start(cluster, "h3", "held", "second")
    docker(cluster, "h3", "rm", "-f", "first")
    assert "(Waited for" in run_fails(cluster, "h2", "held")
    docker(cluster, "h3", "rm", "-f", "second")
    assert run(cluster, "h2", "held", "cat /data/x") == "alive"
    remove(cluster, "held")


def test_anonymous_volumes(cluster):
    before = names(cluster, "h1")
    docker(cluster, "h1", "run", "-d", "--rm", "--network", "none", "--volume-driver", "flocker", "-v", "/data", "--name", "anonymous", IMAGE,
           *SLEEP)
    name, = names(cluster, "h1") - before
    assert re.fullmatch("[0-9a-f]{64}", name)
    metadata, = [d["metadata"] for d in cluster.api.datasets() if d["metadata"].get("name") == name]
    assert metadata["io.flocker.anonymous"] == "true"
    docker(cluster, "h1", "stop", "-t", "2", "anonymous")
    wait_until(lambda: all(d["metadata"].get("name") != name for d in cluster.api.datasets() if not d["deleted"]),
               "the anonymous volume is deleted")
    wait_until(lambda: names(cluster, "h1") == before, "and not listed")


def test_keep(cluster):
    configure(cluster, ["h3"], remove="keep")
    try:
        run(cluster, "h3", "kept", "echo kept >/data/x")
        docker(cluster, "h3", "volume", "rm", "kept")
        assert run(cluster, "h1", "kept", "cat /data/x") == "kept"
    finally:
        configure(cluster, ["h3"], remove="delete")
    remove(cluster, "kept", "h3")


def test_dockerd_restarts(cluster):
    """With live-restore the container goes on; killed at a bad moment it forgets nothing that matters."""
    start(cluster, "h1", "restart", "restart", "--restart", "always")
    dataset = dataset_of(cluster, "restart")
    for end in (cluster.stop, cluster.kill):
        end("h1", "docker")
        holds(lambda: leases(cluster).get(dataset) == cluster.node("h1"), "the lease stays", 1)
        cluster.start("h1", "docker")
        assert docker(cluster, "h1", "exec", "restart", "sh", "-c", "echo x >>/data/x; wc -l </data/x").isdigit()
        assert inspect(cluster, "h1", "restart")["Mountpoint"] == f"/flocker/{dataset}"
    docker(cluster, "h1", "exec", "-d", "restart", "kill", "-TERM", "1")  # the policy starts it again: another mount
    wait_until(lambda: docker(cluster, "h1", "inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "restart") == "1 true",
               "it runs again")  # ("running" is said while it is being started, too)
    wait_until(lambda: leases(cluster).get(dataset) == cluster.node("h1"), "the lease of the new mount")
    docker(cluster, "h1", "rm", "-f", "restart")
    no_lease(cluster, "restart")
    assert run(cluster, "h2", "restart", "wc -l </data/x") == "2"
    remove(cluster, "restart")


def test_agent_killed(cluster):
    """kill -9 of the agent with the container running: nothing is unmounted, and the mount is still known afterwards."""
    start(cluster, "h1", "agent", "agent")
    dataset = dataset_of(cluster, "agent")
    for _ in range(3):
        cluster.kill("h1", "agent")
        assert docker(cluster, "h1", "exec", "agent", "sh", "-c", "echo x >/data/x; cat /data/x") == "x"
        cluster.start("h1", "agent")
        wait_until(lambda: inspect(cluster, "h1", "agent")["Mountpoint"] == f"/flocker/{dataset}", "inspect tells where it is")
        cluster.wait_nodes(HOSTS)
        holds(lambda: leases(cluster).get(dataset) == cluster.node("h1"), "the lease stays", 1)
    docker(cluster, "h1", "rm", "-f", "agent")
    no_lease(cluster, "agent")
    assert run(cluster, "h2", "agent", "cat /data/x") == "x"
    remove(cluster, "agent")


def test_control_away(cluster):
    start(cluster, "h1", "away", "away")
    run(cluster, "h2", "elsewhere", "true")
    cluster.kill("control", "control")
    began = time.monotonic()
    try:
        one = plugin(cluster, "h1")
        assert min(seconds(lambda: one.ok("List")) for _ in range(30)) < 0.01
        assert min(seconds(lambda: one.ok("Get", Name="elsewhere")) for _ in range(30)) < 0.01
        assert {"away", "elsewhere"} <= names(cluster, "h1")
        assert inspect(cluster, "h1", "elsewhere")["Status"]["node"] == cluster.node("h2")
        docker(cluster, "h1", "restart", "-t", "2", "away")  # its volume is here, and its lease too
        assert seconds(lambda: run_fails(cluster, "h1", "elsewhere")) < WAIT + 10
        said = fails(cluster, "h1", "volume", "create", "-d", "flocker", "new")
        assert "The control service at" in said and "has not answered" in said, said
        cluster.kill("h1", "agent")  # and the agent too: the list is on disk
        cluster.start("h1", "agent")
        wait_until(lambda: {"away", "elsewhere"} <= names(cluster, "h1"), "the volumes are listed")
        assert docker(cluster, "h1", "exec", "away", "sh", "-c", "echo x >/data/x; cat /data/x") == "x"
        time.sleep(max(0, began + 30 - time.monotonic()))  # h2's agent has tried about 26 s after the kill, and will after 51 s
    finally:
        cluster.start("control", "control")
    run(cluster, "h2", "elsewhere", "true")  # as long as somebody waits it tries once a second
    cluster.wait_nodes(HOSTS, 90)
    dataset = dataset_of(cluster, "away")
    wait_until(lambda: leases(cluster).get(dataset) == cluster.node("h1"), "the lease is there")
    docker(cluster, "h1", "rm", "-f", "away")
    no_lease(cluster, "away")
    remove(cluster, "away")
    remove(cluster, "elsewhere")


def test_host_reboots(cluster):
    start(cluster, "h3", "reboot", "reboot")
    docker(cluster, "h3", "exec", "reboot", "sh", "-c", "echo x >/data/x; sync")
    dataset = dataset_of(cluster, "reboot")
    assert leases(cluster)[dataset] == cluster.node("h3")
    cluster.kill("h3")
    said = run_fails(cluster, "h2", "reboot")
    assert cluster.node("h3")[:8] in said, said  # it may still write, as far as anybody knows
    cluster.start("h3")
    cluster.wait_nodes(HOSTS)
    no_lease(cluster, "reboot")
    assert run(cluster, "h2", "reboot", "cat /data/x") == "x"
    docker(cluster, "h3", "rm", "-f", "reboot")
    remove(cluster, "reboot")


def test_lost_unmounts(cluster):
    """A mount that nobody gives back ends when nobody uses the volume; not before."""
    one = plugin(cluster, "h1")
    one.ok("Create", Name="lost")
    path = one.ok("Mount", Name="lost", ID="lost-1")["Mountpoint"]
    dataset = dataset_of(cluster, "lost")
    in_host(cluster, "h1", f"mkdir -p /tmp/task; setsid unshare -m sh -c 'mount --bind {path} /tmp/task; umount -l {path}; "
                           "echo $$ >/tmp/task.pid; exec sleep 1000' >/dev/null 2>&1 &")
    holds(lambda: leases(cluster).get(dataset) == cluster.node("h1"), "the lease of a volume in use stays", 2 * UNUSED, 0.5)
    in_host(cluster, "h1", "kill $(cat /tmp/task.pid)")
    wait_until(lambda: dataset not in leases(cluster), "the lease ends", 4 * UNUSED)
    assert run(cluster, "h2", "lost", "ls /data") == ""
    one.ok("Unmount", Name="lost", ID="lost-1")  # late, and harmless
    remove(cluster, "lost")


def test_dvdcli(cluster):
    """What Mesos' docker/volume isolator does: no dockerd, no ids."""
    one, two = plugin(cluster, "h1"), plugin(cluster, "h2")
    assert one.call("/Plugin.Activate") == {"Implements": ["VolumeDriver"]}
    one.ok("Create", Name="mesos", Opts={"size": "128M"})
    path = one.ok("Mount", Name="mesos")["Mountpoint"]
    assert one.ok("Path", Name="mesos")["Mountpoint"] == path
    in_host(cluster, "h1", f"echo task >{path}/x; cd {path}; setsid sh -c 'echo $$ >/tmp/task.pid; exec sleep 1000' >/dev/null 2>&1 &")
    assert cluster.node("h1")[:8] in two.error("Mount", Name="mesos")
    assert two.error("Path", Name="mesos").startswith("Volume not available.")
    in_host(cluster, "h1", "kill $(cat /tmp/task.pid)")
    one.ok("Unmount", Name="mesos")
    path = two.ok("Mount", Name="mesos")["Mountpoint"]
    assert cluster.shell("h2", f"cat {path}/x") == "task\n"
    two.ok("Unmount", Name="mesos")
    no_lease(cluster, "mesos")  # the control service hears of it a moment later, and of the other host's Remove perhaps before
    one.ok("Remove", Name="mesos")
    assert "Could not find volume with given name." in two.error("Get", Name="mesos")


def test_api_and_docker_see_the_same(cluster):
    dataset = cluster.api.create_dataset(cluster.node("h2"), metadata={"name": "by-api"})
    wait_until(lambda: "by-api" in names(cluster, "h1"), "Docker lists what the API made")
    assert run(cluster, "h1", "by-api", "echo x >/data/x; cat /data/x") == "x"
    start(cluster, "h1", "by-api", "by-api")
    cluster.api.move_dataset(dataset, cluster.node("h3"))  # waits for the lease
    holds(lambda: cluster.api.dataset_state(dataset)["primary"] == cluster.node("h1"), "it stays with its container", 2)
    docker(cluster, "h1", "rm", "-f", "by-api")
    cluster.wait_mounted(dataset, "h3")
    cluster.api.delete_dataset(dataset)
    wait_until(lambda: "by-api" not in names(cluster, "h1"), "Docker does not list what was deleted")
