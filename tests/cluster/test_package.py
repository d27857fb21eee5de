"""The Debian package on fresh machines, Debian 12 and 13, booted by systemd-nspawn: installed, set up, upgraded under load, removed.

The tests are one story, in their order. Both machines get the very same package.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import lab
from lab import wait_until

sys.path.insert(0, os.path.join(lab.CHECKOUT, "lab"))
import engines  # noqa: E402 pylint: disable=wrong-import-position
import images  # noqa: E402 pylint: disable=wrong-import-position
import machines  # noqa: E402 pylint: disable=wrong-import-position
import roots  # noqa: E402 pylint: disable=wrong-import-position

LONG = True
ADDRESSES = {"bookworm": "10.78.0.11", "trixie": "10.78.0.12"}
CONTROL = "bookworm"
SERVICES = ["flocker-control.service", "flocker-agent.service"]
PROGRAMS = """flocker flocker-agent flocker-ca flocker-container-agent flocker-control flocker-dataset-agent flocker-deploy
flocker-docker-plugin flocker-node-era flocker-volume flocker-volumes flockerctl""".split()
# What `systemd-analyze security` gave each unit when it was last looked at. A unit that is given more must not get a worse mark
# unnoticed.
EXPOSURE = {"flocker-control.service": 1.1, "flocker-agent.service": 5.7}
ENGINE = "docker-26"
IMAGE = "flocker-lab/busybox:1"
# Networks are of no use here, and may not be set up; the controllers of cgroups are there, but read-only.
START_DOCKER = """for controller in /sys/fs/cgroup/*/; do mount -o remount,rw,bind "$controller" || true; done
    mkdir /run/docker-data; mount -t tmpfs docker-data /run/docker-data
    systemd-run --quiet --unit=docker-of-the-lab --property=Delegate=yes dockerd --data-root=/run/docker-data --storage-driver=vfs \
        --bridge=none --iptables=false --ip6tables=false --ip-forward=false --userland-proxy=false --exec-opt=native.cgroupdriver=cgroupfs --cgroup-parent=/{mark}"""
# No program of such a machine may have a session keyring of its own.
RUNC = """#!/bin/sh
for a in "$@"; do
    shift
    set -- "$@" "$a"
    [ "$a" != create ] || set -- "$@" --no-new-keyring
done
exec /usr/local/bin/runc-itself "$@"
"""
# An agent.yml; a name of its own for the pool tells whose loop device it is.
AGENT_YML = """version: 1
control-service:
  hostname: {control}
dataset:
  backend: btrfs
  pool: /var/lib/flocker-agent/{mark}.img
  pool_size: 2GiB
"""


def say(text):
    print(f"package: {text}", flush=True)


def sh(*argv):
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


class World:
    """Two machines on a network of their own, and the package in two versions."""

    def __init__(self, folder):
        self.folder = folder
        self.mark = f"flocker-package-{secrets.token_hex(4)}"
        self.spaces = {release: f"{self.mark}-{release}" for release in ADDRESSES}
        self.machines = {}
        self.api = None
        self.deb = self.build()
        self.higher = self.with_higher_version()
        self.dataset = self.writer = self.mount = self.started = None

    @staticmethod
    def build(*options, **env):
        done = subprocess.run([os.path.join(lab.CHECKOUT, "scripts", "make-deb"), *options], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=1200, env={**os.environ, **env})
        assert done.returncode == 0, done.stdout + done.stderr
        found = [name for name in os.listdir(f"{lab.CHECKOUT}/build/deb") if re.fullmatch(r"flocker_.*\.deb", name)]
        assert len(found) == 1, found
        return f"{lab.CHECKOUT}/build/deb/{found[0]}"

    def with_higher_version(self):
        tree = f"{self.folder}/higher"
        sh("dpkg-deb", "--raw-extract", self.deb, tree)
        with open(f"{tree}/DEBIAN/control", encoding="utf-8") as f:
            control = f.read()
        with open(f"{tree}/DEBIAN/control", "w", encoding="utf-8") as f:
            f.write(re.sub(r"(?m)^(Version: .*)$", r"\1+higher", control))
        sh("dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", tree, f"{self.folder}/higher.deb")
        shutil.rmtree(tree)
        return f"{self.folder}/higher.deb"

    def up(self):
        for release, space in self.spaces.items():
            sh("ip", "netns", "add", space)
            sh("ip", "-n", space, "link", "set", "lo", "up")
        first, second = self.spaces.values()
        sh("ip", "-n", first, "link", "add", "host0", "type", "veth", "peer", "name", "host0", "netns", second)
        for release, space in self.spaces.items():
            sh("ip", "-n", space, "address", "add", f"{ADDRESSES[release]}/24", "dev", "host0")
            sh("ip", "-n", space, "link", "set", "host0", "up")
        cache = f"{lab.CHECKOUT}/build/cache"
        made = {release: machines.build(release, self.deb, cache, say) for release in ADDRESSES}

        def boot(release):
            self.machines[release] = machines.Machine(made[release], release, f"/run/netns/{self.spaces[release]}")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(boot, ADDRESSES))

    def down(self):
        for m in self.machines.values():
            m.down()
        self.remove_cgroups()
        machines.detach_loops(self.mark)
        for space in self.spaces.values():
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)

    def remove_cgroups(self):
        """Those of Docker's containers, which were under a name of their own; nothing is in them any more."""
        for top, _, _ in list(os.walk("/sys/fs/cgroup", topdown=False)):
            if f"/{self.mark}" in top:
                with contextlib.suppress(OSError):
                    os.rmdir(top)

    def each(self):
        return self.machines.items()

    def install(self, release, deb):
        """What dpkg said."""
        m = self.machines[release]
        shutil.copy(deb, f"/proc/{m.leader}/root/root/flocker.deb")
        return m.run("dpkg", "--install", "/root/flocker.deb").stdout

    def ctl(self, *words):
        return self.machines[CONTROL].run("env", f"FLOCKER_CONTROL_SERVICE={ADDRESSES[CONTROL]}", "FLOCKER_CERTS_PATH=/root/ca",
                                          "flockerctl", *words).stdout

    def node(self, release):
        return next(n["uuid"] for n in self.api.nodes() if n["host"] == ADDRESSES[release])


@pytest.fixture(scope="module")
def world():
    reason = machines.unavailable()
    if reason:
        pytest.skip(f"no machine with systemd can be booted here: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        made = World(folder)
        try:
            made.up()
            yield made
        finally:
            made.down()


def show(m, unit, *names):
    text = m.run("systemctl", "show", unit, *[f"--property={name}" for name in names]).stdout
    values = dict(line.split("=", 1) for line in text.splitlines())
    return [values[name] for name in names]


def is_active(m, unit):
    return m.run("systemctl", "is-active", unit, check=False).stdout.strip() == "active"


def mount_of(m, dataset):
    """The kernel's number of the mount: another one after it was unmounted and mounted again."""
    for line in m.run("cat", "/proc/1/mountinfo").stdout.splitlines():
        if line.split()[4] == f"/flocker/{dataset}":
            return line.split()[0]
    return None


def has_failed(m):
    return m.run("systemctl", "--failed", "--no-legend", "--plain").stdout


def start_writer(m, dataset):
    """A process that is in the mount, has a file of it open, and writes; its pid."""
    m.shell(f"""setsid sh -c 'cd /flocker/{dataset}; exec >>lines; echo $$ >/root/writer.pid
        while :; do echo line; sleep 0.05; done' </dev/null >/dev/null 2>&1 &""")
    return wait_until(lambda: m.shell("cat /root/writer.pid || true").strip(), "the writer's pid")


def lines_written(m, dataset):
    return int(m.run("wc", "-l", f"/flocker/{dataset}/lines").stdout.split()[0])


def docker(m, method, path):
    said = m.run("curl", "-sS", "--unix-socket", "/run/docker.sock", "-X", method, f"http://docker{path}").stdout
    return json.loads(said) if said.strip() else None


def start_docker(world, m):
    """A real one, of the same release; with an image."""
    root = engines.build(ENGINE, f"{lab.CHECKOUT}/build/cache", say)
    for folder in ("usr/bin", "usr/sbin"):
        for name in ("dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-init"):
            if os.path.exists(f"{root}/{folder}/{name}"):
                shutil.copy(f"{root}/{folder}/{name}", f"/proc/{m.leader}/root/usr/local/bin/")
    m.run("mv", "/usr/local/bin/runc", "/usr/local/bin/runc-itself")
    m.put("/usr/local/bin/runc", RUNC, "0755")
    images.build_busybox(f"/proc/{m.leader}/root/root/busybox.tar", world.folder)
    m.shell(START_DOCKER.format(mark=world.mark))
    wait_until(lambda: docker(m, "GET", "/version"), "Docker answers", 60, tolerate=(machines.MachineError,))
    m.shell("""curl -fsS --unix-socket /run/docker.sock -X POST --data-binary @/root/busybox.tar -H 'Content-Type: application/x-tar' \
        http://docker/images/load >/dev/null""")


def start_container(world):
    """On the dataset that the writer uses, by Flocker; since when it runs."""
    m = world.machines["trixie"]
    start_docker(world, m)
    world.ctl("create-container", "-n", ADDRESSES["trixie"], "-V", "data:/data", "--wait=90", "app", IMAGE, "--",
              "sh", "-c", "while :; do echo line >>/data/from-container; sleep 0.05; done")
    return docker(m, "GET", "/containers/flocker--app/json")["State"]["StartedAt"]


def lines_of_container(m, dataset):
    return int(m.run("wc", "-l", f"/flocker/{dataset}/from-container").stdout.split()[0])


def goes_on(world):
    """The process and the container that use the mount are the same and write still, and nothing was unmounted."""
    m = world.machines["trixie"]
    before = lines_written(m, world.dataset), lines_of_container(m, world.dataset)
    wait_until(lambda: lines_written(m, world.dataset) > before[0] and lines_of_container(m, world.dataset) > before[1], "both go on")
    now = docker(m, "GET", "/containers/flocker--app/json")["State"]
    return now["Running"] and now["StartedAt"] == world.started and m.shell("cat /root/writer.pid").strip() == world.writer and \
        mount_of(m, world.dataset) == world.mount


@pytest.mark.deadline(1200)
def test_the_same_files_give_the_same_package(world):
    """Built once more, in another time zone."""
    def digest():
        with open(world.deb, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()
    before = digest()
    assert world.build("--force", "--no-lint", TZ="Asia/Tokyo", LC_ALL="C.UTF-8") == world.deb
    assert digest() == before


def test_install(world):
    """Everything is there with the right modes, and nothing runs or fails without configuration."""
    for release, m in world.each():
        said = world.install(release, world.deb)
        assert "nothing runs yet" in said and "/usr/share/doc/flocker/install.md" in said, said
        for name in PROGRAMS:
            m.run(name, "--version")
        m.run("man", "--where", *PROGRAMS)
        m.run("man", "--where", "5", "agent.yml", "cluster.yml", "flocker-application.yml")
        modes = m.shell("stat -c '%a %U:%G %n' /etc/flocker /var/lib/flocker /var/lib/flocker-agent").splitlines()
        assert modes == ["750 root:flocker /etc/flocker", "700 flocker:flocker /var/lib/flocker",
                         "700 root:root /var/lib/flocker-agent"]
        # No secret and no configuration comes with the package.
        assert m.shell("ls -A /etc/flocker") == "" and ".key" not in m.shell("dpkg --listfiles flocker")
        for unit in [*SERVICES, "flocker-docker-plugin.socket"]:
            assert show(m, unit, "UnitFileState", "ActiveState", "ConditionResult") == ["enabled", "inactive", "no"]
        assert has_failed(m) == ""
        completed = m.run("bash", "-c", "source /usr/share/bash-completion/bash_completion; _completion_loader flockerctl; "
                          "complete -p flockerctl").stdout
        assert "-F _flocker flockerctl" in completed


def test_units_are_as_hard_as_they_were(world):
    for release, m in world.each():
        for unit in SERVICES:
            said = m.run("systemd-analyze", "security", "--no-pager", unit).stdout
            mark = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])
            say(f"{release}: {unit}: {mark}")
            assert mark <= EXPOSURE[unit], said
        verified = m.run("systemd-analyze", "verify", *SERVICES, "flocker-docker-plugin.socket", check=False)
        assert verified.returncode == 0 and "flocker" not in verified.stderr, verified.stderr


def certificates(world):
    """As docs/install.md says."""
    m = world.machines[CONTROL]
    m.shell(f"""mkdir -p /root/ca; cd /root/ca
        flocker-ca initialize --key-type=ec lab >/dev/null
        flocker-ca create-control-certificate --key-type=ec {ADDRESSES[CONTROL]} >/dev/null
        flocker-ca create-api-certificate --key-type=ec user >/dev/null
        for i in bookworm trixie; do mkdir $i; flocker-ca create-node-certificate --key-type=ec -o $i >/dev/null; done""")
    files = {name: m.shell(f"cat /root/ca/{name}") for name in
             ("cluster.crt", "user.crt", "user.key", f"control-{ADDRESSES[CONTROL]}.crt", f"control-{ADDRESSES[CONTROL]}.key")}
    for name in ("cluster.crt", "user.crt", "user.key"):
        with open(f"{world.folder}/{name}", "w", encoding="ascii") as f:
            f.write(files[name])
    m.put("/etc/flocker/control-service.crt", files[f"control-{ADDRESSES[CONTROL]}.crt"])
    m.put("/etc/flocker/control-service.key", files[f"control-{ADDRESSES[CONTROL]}.key"], "0600", "flocker:flocker")
    for release, node in world.each():
        node.put("/etc/flocker/cluster.crt", files["cluster.crt"])
        for kind, mode in (("crt", "0644"), ("key", "0600")):
            node.put(f"/etc/flocker/node.{kind}", m.shell(f"cat /root/ca/{release}/*.{kind}"), mode)
        node.put("/etc/flocker/agent.yml", AGENT_YML.format(control=ADDRESSES[CONTROL], mark=world.mark))


@pytest.mark.deadline(300)
def test_set_up(world):
    """Certificates, agent.yml, systemctl start: both services come up, and a dataset moves from one release to the other."""
    certificates(world)
    for release, m in world.each():
        m.run("systemctl", "start", *(SERVICES if release == CONTROL else SERVICES[1:]))
        assert is_active(m, "flocker-agent.service") and is_active(m, "flocker-docker-plugin.socket")
        assert m.shell("stat -c '%a %F' /run/docker/plugins/flocker/flocker.sock").strip() == "600 socket"
        assert has_failed(m) == ""
    m = world.machines[CONTROL]
    assert m.shell("ps -o user= -C flocker-control").split() == ["flocker"]
    world.api = lab.Api(m.leader, ADDRESSES[CONTROL], 4523, world.folder)
    wait_until(lambda: len(world.api.nodes()) == 2, "both nodes")
    assert all(address in world.ctl("list-nodes") for address in ADDRESSES.values())
    world.ctl("create", "-n", ADDRESSES["bookworm"], "-m", "name=data", "--wait=60")
    world.dataset = world.api.datasets()[0]["dataset_id"]
    m.shell(f"echo first >/flocker/{world.dataset}/lines")
    world.ctl("move", "-d", "data", "-t", ADDRESSES["trixie"], "--wait=60")
    other = world.machines["trixie"]
    assert other.shell(f"cat /flocker/{world.dataset}/lines") == "first\n"
    world.mount = mount_of(other, world.dataset)
    world.writer = start_writer(other, world.dataset)
    world.started = start_container(world)
    for machine in world.machines.values():
        assert "not permitted" not in machine.shell("journalctl --no-pager -u 'flocker-*'").lower()


class Storm(threading.Thread):
    """Changes the configuration without pause, also while nobody answers; keeps what was answered."""

    def __init__(self, api, node):
        super().__init__(daemon=True)
        self.api, self.node = api, node
        self.made, self.failed = [], 0
        self.ending = False

    def run(self):
        while not self.ending:
            name = f"storm-{len(self.made)}-{self.failed}"
            try:
                self.api.create_dataset("00000000-0000-4000-8000-000000000000", metadata={"name": name})
                self.made.append(name)
            except (OSError, lab.ApiError, lab.http.client.HTTPException):
                self.failed += 1
            time.sleep(0.01)


def test_upgrade(world):
    """A higher version is installed while a container and a process use a volume and the configuration changes."""
    storm = Storm(world.api, world.node("bookworm"))
    storm.start()
    before = {}
    for release, m in world.each():
        before[release] = [show(m, unit, "MainPID")[0] for unit in SERVICES] + [m.shell("stat -c %i /run/docker/plugins/flocker/*.sock")]
        world.install(release, world.higher)
        after = [show(m, unit, "MainPID")[0] for unit in SERVICES] + [m.shell("stat -c %i /run/docker/plugins/flocker/*.sock")]
        assert "+higher" in m.run("dpkg-query", "-Wf", "${Version}", "flocker").stdout
        assert after[1] not in ("0", before[release][1]), "the agent was not restarted"
        assert release != CONTROL or after[0] not in ("0", before[release][0]), "the control service was not restarted"
        assert after[2] == before[release][2], "the socket of the Docker plugin was closed"
        assert has_failed(m) == ""
    storm.ending = True
    storm.join()
    assert goes_on(world)
    wait_until(lambda: len(world.api.nodes()) == 2, "both nodes")
    names = {d["metadata"].get("name") for d in world.api.datasets()}
    assert len(storm.made) > 20 and set(storm.made) <= names, f"of {len(storm.made)} acknowledged, lost: {set(storm.made) - names}"
    say(f"upgrade: {len(storm.made)} changes acknowledged meanwhile, {storm.failed} not answered")


def test_killed_and_hung(world):
    """A process that dies, or does not turn its loop any more, is started again; mounts stay."""
    m = world.machines["trixie"]
    pid, = show(m, "flocker-agent.service", "MainPID")
    m.run("kill", "-KILL", pid)
    wait_until(lambda: is_active(m, "flocker-agent.service") and show(m, "flocker-agent.service", "MainPID")[0] not in ("0", pid),
               "the agent again")
    assert goes_on(world)
    m = world.machines[CONTROL]
    m.shell("""mkdir -p /run/systemd/system/flocker-control.service.d
        printf '[Service]\\nWatchdogSec=1\\n' >/run/systemd/system/flocker-control.service.d/soon.conf
        systemctl daemon-reload; systemctl restart flocker-control""")
    pid, = show(m, "flocker-control.service", "MainPID")
    lab.holds(lambda: show(m, "flocker-control.service", "MainPID")[0] == pid, "an idle service shows that it lives", 2.5, 0.5)
    m.run("kill", "-STOP", pid)
    wait_until(lambda: is_active(m, "flocker-control.service") and show(m, "flocker-control.service", "MainPID")[0] not in ("0", pid),
               "the control service again")
    wait_until(lambda: len(world.api.nodes()) == 2, "both nodes")
    m.shell("rm -r /run/systemd/system/flocker-control.service.d; systemctl daemon-reload; systemctl restart flocker-control")


def test_backup_and_restore_by_root(world):
    """The service is no root, and can go on with what root has put back."""
    m = world.machines[CONTROL]
    m.shell("""umask 077; flocker-control --backup /root/backup; systemctl stop flocker-control
        flocker-control --backup /root/second; flocker-control --restore /root/backup --replace
        systemctl start flocker-control""")
    assert m.shell("find /var/lib/flocker -maxdepth 1 ! -user flocker") == ""
    wait_until(lambda: len(world.api.nodes()) == 2, "both nodes")
    assert world.api.dataset_state(world.dataset)["path"] == f"/flocker/{world.dataset}"
    assert goes_on(world)


def test_remove_and_purge(world):
    """Removing ends the services and nothing else; purging takes the configuration, and never data or the authority's key."""
    m = world.machines["trixie"]
    m.put("/etc/flocker/cluster.key", "the authority's\n", "0600")
    m.run("dpkg", "--remove", "flocker")
    assert not is_active(m, "flocker-agent.service")
    assert m.shell("ls /run/docker/plugins/flocker || true") == ""
    assert goes_on(world)
    assert "agent.yml" in m.shell("ls /etc/flocker")
    m.run("dpkg", "--purge", "flocker")
    assert goes_on(world)
    assert m.shell("ls -A /etc/flocker") == "cluster.key\n"
    assert m.shell("ls -A /var/lib/flocker-agent | grep img").strip() == f"{world.mark}.img"
    assert not os.path.exists(f"/proc/{m.leader}/root/var/lib/flocker") and "flocker" not in m.shell("ls /usr/bin /usr/lib/systemd/system")
    m = world.machines[CONTROL]
    m.run("dpkg", "--purge", "flocker")
    assert m.shell("ls -A /etc/flocker /var/lib/flocker 2>/dev/null || true") == ""
    assert f"{world.mark}.img" in m.shell("ls -A /var/lib/flocker-agent")
