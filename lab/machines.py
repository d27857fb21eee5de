"""Machines with systemd, for tests of the Debian package: Debian roots, booted by systemd-nspawn with a memory of what is written.

The roots are kept in build/cache. They hold what the package depends on, so that it is installed without a network.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time

from roots import cached, codename, debian_sources, recipe, sources_of, unpack

# Beside what the package itself depends on and recommends.
PACKAGES = ["systemd", "systemd-sysv", "dbus", "procps", "iproute2", "curl", "bash-completion", "man-db", "nftables"]
LOOP_DEVICES = 256
BOOT = 60


class MachineError(Exception):
    pass


def unavailable():
    """Why there can be no machine here; None when there can."""
    if os.geteuid() != 0:
        return "systemd-nspawn needs root"
    if shutil.which("systemd-nspawn") is None:
        return "there is no systemd-nspawn (package systemd-container)"
    return None


def dependencies(deb):
    """The packages that one depends on and recommends; of alternatives the first."""
    names = []
    for field in ("Depends", "Recommends"):
        text = subprocess.run(["dpkg-deb", "--field", deb, field], capture_output=True, text=True, check=True).stdout
        names += [re.split(r"[\s(|:]", item.strip())[0] for item in text.split(",") if item.strip()]
    return sorted(set(names))


def build(release, deb, cache, progress):
    """A root of that release, with all that `deb` needs; made when it is not in the cache."""
    packages = sorted({*PACKAGES, *dependencies(deb)})

    def make(root):
        progress(f"installing Debian {release} with {len(packages)} packages")
        sources = debian_sources() if release == codename() else sources_of(release)
        unpack(root, release, *sources, packages, variant="minbase")
        # Else dpkg would go on leaving out documents.
        os.unlink(f"{root}/etc/dpkg/dpkg.cfg.d/99mmdebstrap")
        for name in ("etc/machine-id", "etc/hostname"):
            with open(f"{root}/{name}", "w", encoding="ascii"):
                pass
    return cached(cache, f"machine-{release}", recipe(__file__, release, *packages), make)


class Machine:
    """A booted machine. What it writes lies in memory and is gone with it."""

    def __init__(self, root, name, network):
        """`network`: path of the network namespace that is its own."""
        self.name = name
        self.console = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
        self.nspawn = subprocess.Popen(  # pylint: disable=consider-using-with
            ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe", f"--machine={name}",
             f"--directory={root}", "--volatile=overlay", f"--network-namespace-path={network}", "--capability=CAP_NET_ADMIN",
             "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--boot", "systemd.unit=multi-user.target"],
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=subprocess.STDOUT, start_new_session=True)
        self.leader = None
        try:
            self.leader = self.wait_booted()
            self.make_loop_devices()
        except BaseException:
            self.down()
            raise

    def said(self):
        """What stands on its console."""
        self.console.seek(0)
        return self.console.read().decode(errors="replace")

    def children(self):
        with open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children", encoding="ascii") as f:
            return [int(pid) for pid in f.read().split()]

    def wait_booted(self):
        end = time.monotonic() + BOOT
        while time.monotonic() < end:
            if self.nspawn.poll() is not None:
                raise MachineError(f"{self.name} did not boot: {self.said()}")
            for self.leader in self.children():
                done = self.run("systemctl", "is-system-running", check=False)
                if done.stdout.strip() in ("running", "degraded"):
                    return self.leader
            time.sleep(0.1)
        raise MachineError(f"{self.name} did not boot within {BOOT} s: {self.said()}")

    def make_loop_devices(self):
        # /dev of a machine is its own: what the kernel makes later does not appear there.
        self.shell(f"""mknod /dev/loop-control c 10 237; mknod /dev/btrfs-control c 10 234
            i=0; while [ $i -lt {LOOP_DEVICES} ]; do echo "b /dev/loop$i 0600 root root - 7:$i"; i=$((i + 1)); done >/run/loops.conf
            systemd-tmpfiles --create /run/loops.conf""")

    def argv(self, *command):
        return ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--", "env", "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
                "DEBIAN_FRONTEND=noninteractive", *map(str, command)]

    def run(self, *command, check=True, text_in=None, timeout=120):
        """Runs a command there as root; raises for its exit status unless told not to."""
        done = subprocess.run(self.argv(*command), input=text_in, stdin=subprocess.DEVNULL if text_in is None else None,
                              capture_output=True, text=True, check=False, timeout=timeout)
        if check and done.returncode != 0:
            raise MachineError(f"{self.name}: {' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def shell(self, script, **settings):
        return self.run("sh", "-ec", script, **settings).stdout

    def put(self, path, text, mode="0644", owner="root:root"):
        self.run("sh", "-ec", 'umask 077; cat >"$1"; chown "$3" "$1"; chmod "$2" "$1"', "put", path, mode, owner, text_in=text)

    def down(self):
        """Ends it like a power failure."""
        try:
            pids = [self.leader] if self.leader else self.children()
        except OSError:
            pids = []
        for pid in pids:
            subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
        if self.nspawn.poll() is None:
            try:
                self.nspawn.wait(10)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
        self.console.close()


def detach_loops(mark):
    """Detaches the loop devices whose files have `mark` in their names, also where those files are out of sight."""
    for name in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="replace") as f:
                if mark in f.read():
                    subprocess.run(["losetup", "--detach", f"/dev/{name}"], check=False, capture_output=True)
        except OSError:
            continue
