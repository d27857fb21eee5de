"""The lab itself: what the other tests rely on."""

import os
import signal
import subprocess
import time

import pytest

from lab import CLUSTER, wait_until

CLUSTER_OPTIONS = {"nodes": 2, "docker": True, "flocker": False}


@pytest.fixture(scope="module")
def hosts():
    from lab import Cluster  # pylint: disable=import-outside-toplevel
    made = Cluster(**CLUSTER_OPTIONS)
    yield made
    made.down()


def reaches(cluster, address, host="client"):
    """Does the host answer at all? Nobody listens on port 9: a refusal is an answer."""
    script = f"import socket; socket.create_connection(('{address}', 9), 1)"
    return "refused" in cluster.lab_error("exec", host, "/usr/bin/python3", "-c", script)


@pytest.fixture(scope="module", autouse=True)
def _lab_error(hosts):
    def lab_error(*words):
        return subprocess.run([CLUSTER, "--dir", hosts.directory, *words], capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, timeout=60).stderr
    hosts.lab_error = lab_error


def loops_of(cluster):
    tag = os.path.basename(cluster.path())
    found = []
    for device in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{device}/loop/backing_file", encoding="utf-8") as f:
                if f"/{tag}/" in f.read():
                    found.append(device)
        except OSError:
            pass
    return found


def test_a_host_is_a_machine_of_its_own(hosts):
    assert hosts.run("h1", "hostname").strip() == "h1"
    ids = {hosts.run(h, "cat", "/proc/sys/kernel/random/boot_id") for h in ("h1", "h2")}
    ids.add(open("/proc/sys/kernel/random/boot_id", encoding="ascii").read())
    assert len(ids) == 3
    hosts.shell("h1", "echo here >/etc/flocker/mine; echo here >/root/lab-test; echo here >/flocker/mine")
    assert not os.path.exists("/root/lab-test")
    assert not os.path.exists("/flocker/mine")
    assert "mine" not in hosts.run("h2", "ls", "/etc/flocker", "/flocker")
    assert "lab-test" not in hosts.run("h2", "ls", "/root")


def test_a_mount_made_later_reaches_new_and_running_containers(hosts):
    hosts.lab("images", "h1", "--only=busybox", "--only=postgres", timeout=600)
    run = "docker run -d --name {} {} flocker-lab/busybox:1 sleep 600"
    hosts.shell("h1", run.format("early", "-v /flocker:/flocker:rslave"))
    hosts.shell("h1", "mkdir /flocker/v; mount -t tmpfs lab-v /flocker/v; echo data >/flocker/v/file")
    assert hosts.shell("h1", "docker exec early cat /flocker/v/file") == "data\n"
    assert hosts.shell("h1", "docker run --rm -v /flocker/v:/data flocker-lab/busybox:1 cat /data/file") == "data\n"
    assert "lab-v" not in hosts.run("h2", "cat", "/proc/mounts")
    with open("/proc/mounts", encoding="utf-8") as f:
        assert "lab-v" not in f.read()
    hosts.shell("h1", "docker rm -f early")


def test_a_partition_cuts_and_heals(hosts):
    for host in ("h1", "h2"):
        assert reaches(hosts, hosts.address(host))
    hosts.partition("h2")
    assert not reaches(hosts, hosts.address("h2"))
    assert not reaches(hosts, hosts.address("h2"), "h1")
    assert reaches(hosts, hosts.address("h1"))
    hosts.heal("h2")
    assert reaches(hosts, hosts.address("h2"))


def test_a_host_that_dies_loses_all_but_its_disk(hosts):
    before = hosts.run("h1", "cat", "/proc/sys/kernel/random/boot_id")
    image = hosts.path("h1", "disk.img")
    hosts.shell("h1", f"truncate -s 200M {image}; mkfs.btrfs -q {image}; mkdir /flocker/disk; "
                      f"mount -o loop {image} /flocker/disk; echo kept >/flocker/disk/file; sync; echo lost >/run/lost; "
                      f"truncate -s 1M {image}.bare; losetup -f {image}.bare; setsid -f sleep 987654 >/dev/null 2>&1")
    assert len(loops_of(hosts)) == 2
    hosts.kill("h1")
    assert loops_of(hosts) == []
    assert subprocess.run(["pgrep", "-f", "^sleep 987654$"], check=False).returncode == 1
    assert not hosts.status()["hosts"]["h1"]["up"]
    assert not reaches(hosts, hosts.address("h1"))
    hosts.start("h1")
    assert hosts.run("h1", "cat", "/proc/sys/kernel/random/boot_id") != before
    assert "lost" not in hosts.run("h1", "ls", "/run")
    hosts.shell("h1", f"mount -o loop {image} /flocker/disk; grep -qx kept /flocker/disk/file; umount /flocker/disk")
    assert hosts.status()["hosts"]["h1"]["processes"] == {"docker": True}
    assert reaches(hosts, hosts.address("h1"))


def test_a_process_is_killed_and_started(hosts):
    hosts.kill("h2", "docker")
    assert hosts.status()["hosts"]["h2"]["processes"] == {"docker": False}
    hosts.start("h2", "docker")
    assert hosts.status()["hosts"]["h2"]["processes"] == {"docker": True}


@pytest.mark.parametrize("moment", [0.1, 0.3, 0.6, None])
def test_down_clears_up_after_anything(make_cluster, moment):
    """After `up` was killed in the middle; after everything was killed and the cluster's record is lost."""
    cluster = make_cluster(nodes=1, flocker=False)
    base = cluster.path()
    tag = os.path.basename(base)
    cluster.lab("down")
    os.makedirs(cluster.directory, exist_ok=True)
    process = subprocess.Popen([CLUSTER, "--dir", cluster.directory, "up", "--nodes", "2", "--no-flocker"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if moment is not None:
        time.sleep(moment)
        process.kill()
        process.wait()
    else:
        assert process.wait(60) == 0
        image = os.path.join(base, "h1", "x.img")
        cluster.shell("h1", f"truncate -s 200M {image}; mkfs.ext4 -q {image}; mkdir /flocker/v; mount -o loop {image} "
                            f"/flocker/v; truncate -s 1M {image}.bare; losetup -f {image}.bare; rm {image}.bare")
        for host in cluster.status()["hosts"].values():
            os.kill(host["pid"], signal.SIGKILL)
        os.unlink(os.path.join(cluster.directory, "state.json"))
    cluster.lab("down")
    assert not os.path.exists(base)
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        assert tag not in f.read()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        assert tag not in names, directory
    for device in os.listdir("/sys/block"):
        path = f"/sys/block/{device}/loop/backing_file"
        assert not os.path.exists(path) or tag not in open(path, encoding="utf-8").read()

    def processes():
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if tag.encode() in f.read():
                        found.append(pid)
            except OSError:
                pass
        return found
    assert wait_until(lambda: not processes(), "the end of all processes", 5)
    cluster.lab("down")
