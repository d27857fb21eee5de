"""The benchmarks of moving local volumes: two hosts of the lab without Docker, or a guest with OpenZFS."""

import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from hosts import Hosts, lab
from report import CHECKOUT, MIB, NotMeasured, emit, say
from volumes import MemoryPeak

GIB = 1 << 30
PAUSES = 10  # moves of the smaller volume
BIG_PAUSES = 3  # and of the larger
ZFS_PAUSES = 4
SMALL, BIG = 1, 8  # GiB
BUSY_RATE = 50 * MIB  # bytes a second of the busy writer
THROUGHPUT_FILES = 64  # of 64 MiB each
GUEST = os.path.join(CHECKOUT, "lab", "uml-zfs")
WRITER = os.path.join(CHECKOUT, "bench", "pages")


class Mounts:
    """Tells when something is mounted or unmounted on a host, without asking again and again."""

    def __init__(self, pid):
        self.path = f"/proc/{pid}/mountinfo"
        self.file = open(self.path, encoding="utf-8", errors="replace")  # pylint: disable=consider-using-with
        self.poll = select.poll()
        self.poll.register(self.file, select.POLLPRI)
        self.text = ""
        self.look()

    def look(self):
        self.file.seek(0)
        self.text = self.file.read()

    def wait(self, place, mounted, timeout):
        """The moment at which the place became (un)mounted."""
        end = time.monotonic() + timeout
        at = time.monotonic()
        while (f" {place} " in self.text) != mounted:
            if time.monotonic() > end:
                raise lab.WaitTimeout(f"{place} was not {'mounted' if mounted else 'unmounted'} within {timeout} s")
            self.poll.poll(1000)
            at = time.monotonic()
            self.look()
        return at

    def close(self):
        self.file.close()


class Moves(Hosts):
    backend = "btrfs"

    def __init__(self):
        say(f"starting two hosts with {self.backend}")
        super().__init__(nodes=2, backend=self.backend, options=["--keep-replica", "0"])  # each move ships all data

    def volume(self, gigabytes):
        """A mounted dataset on h1 with random bytes in files of 64 MiB."""
        dataset = self.create_datasets("h1", 1)[0]
        self.on("h1", "sh", "-ec", 'for i in $(seq "$1"); do head -c 64M /dev/urandom >"$0/$i"; done; sync -f "$0"',
                f"/flocker/{dataset}", str(16 * gigabytes), timeout=600)
        return dataset

    def detail(self, dataset):
        return self.call("GET", f"/v1/state/datasets/{dataset}")

    def is_on(self, dataset, host):
        state = self.detail(dataset)
        return state.get("node") == self.node(host) and state["status"] == "attached"

    def settled(self, dataset, host, timeout=600):
        self.wait(lambda: self.is_on(dataset, host), f"{dataset} is on {host}", timeout, 0.05)

    def move(self, dataset, target):
        self.call("POST", f"/v1/configuration/datasets/{dataset}", {"primary": self.node(target)})

    # --- the pause -------------------------------------------------------------------------------------------------

    def writer(self, host, place):
        return subprocess.Popen(self.enter(host, "/usr/bin/python3", WRITER, f"{place}/1", str(BUSY_RATE)),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=self.environment(), text=True)

    def stop_writer(self, dataset, writer):
        """Once the release waits for it."""
        self.wait(lambda: self.detail(dataset).get("reason", {}).get("code") == "volume-busy" or writer.poll() is not None,
                  "the release waits for the writer", 600, 0.002)
        self.signal_inside(writer)

    @staticmethod
    def signal_inside(writer):
        """nsenter passes no signals on: its child is meant."""
        for child in children(writer.pid):
            os.kill(child, signal.SIGTERM)

    def pause(self, dataset, source, target, busy):
        """Seconds between the unmount there and the mount here."""
        place = f"/flocker/{dataset}"
        writer = self.writer(source, place) if busy else None
        if writer:
            assert writer.stdout.readline() == "writing\n"
        there, here = Mounts(self.hosts[source]), Mounts(self.hosts[target])
        try:
            self.move(dataset, target)
            if writer:
                self.stop_writer(dataset, writer)
                writer.wait(30)
            gone = there.wait(place, mounted=False, timeout=600)
            back = here.wait(place, mounted=True, timeout=60)
        finally:
            there.close()
            here.close()
            if writer and writer.poll() is None:
                self.signal_inside(writer)
        self.settled(dataset, target)
        return back - gone

    def pauses(self, dataset, busy, count):
        found, hosts = [], ["h1", "h2"]
        for _ in range(count + count % 2):  # there and back
            found.append(1000 * self.pause(dataset, *hosts, busy))
            hosts.reverse()
            say(f"{found[-1]:.0f} ms")
        return found[:count]

    def measure_pauses(self, name, busy, goal):
        small, big = self.volume(SMALL), self.volume(BIG)
        theirs, ours = [], []
        for _ in range(PAUSES // 2):  # in turns: a machine's speed changes
            theirs.append(1000 * self.pause_by_hand(small, "h1", "h2", busy))
            ours += self.pauses(small, busy, 2)
        more = self.pauses(big, busy, BIG_PAUSES)
        self.delete_datasets([small, big])
        median, of_big = statistics.median(ours), statistics.median(more)
        met = emit(name, median, "ms", goal=goal, theirs=statistics.median(theirs), peer="btrfs send | btrfs receive by hand",
                   min=round(min(ours)), max=round(max(ours)), rounds=len(ours), gigabytes=SMALL)
        return emit(f"{name}_of_big", abs(of_big - median), "ms", goal=50, of_big=round(of_big, 1), gigabytes=BIG,
                    rounds=len(more), min=round(min(more)), max=round(max(more)), beside=round(median, 1)) and met

    def pause_by_hand(self, dataset, source, target, busy):
        """Seconds in which nothing can be written when the same is done with btrfs's programs: rounds while the writer runs, until
        they shrink no more, then a last one, durable at its end. Nothing is unmounted, mounted, encrypted or marked."""
        pools = self.pools(source, target)
        here, there = (f"{pools[host]}/by-hand" for host in (source, target))
        self.on(source, "sh", "-ec", 'mkdir "$1"; btrfs subvolume snapshot "$0" "$1/vol"', f"{pools[source]}/flocker/{dataset}/vol", here)
        self.on(target, "mkdir", there)
        writer = self.writer(source, f"{here}/vol") if busy else None
        if writer:
            assert writer.stdout.readline() == "writing\n"
        last, took, number = 0.0, self.round_by_hand(source, target, here, there, 0), 1
        while number < 9 and (number < 3 or took < 0.8 * last):
            last, took = took, self.round_by_hand(source, target, here, there, number)
            number += 1
        if writer:
            self.signal_inside(writer)
            writer.wait(30)
        begun = time.monotonic()
        self.round_by_hand(source, target, here, there, number)
        self.on(target, "btrfs", "subvolume", "snapshot", f"{there}/s{number}", f"{there}/vol")
        pause = time.monotonic() - begun
        for host, folder in ((source, here), (target, there)):
            self.on(host, "sh", "-ec", 'btrfs subvolume delete "$0"/*; rmdir "$0"; btrfs filesystem sync "$1"; '
                    'btrfs subvolume sync "$1"', folder, pools[host])
        say(f"by hand, after {number} rounds: {1000 * pause:.0f} ms")
        return pause

    def round_by_hand(self, source, target, here, there, number):
        begun = time.monotonic()
        self.on(source, "btrfs", "subvolume", "snapshot", "-r", f"{here}/vol", f"{here}/s{number}")
        self.pipe(source, target, f"{here}/s{number}", there, *(["-p", f"{here}/s{number - 1}"] if number else []))
        self.on(target, "sync", "-f", there)
        return time.monotonic() - begun

    def move_pause_idle(self):
        return self.measure_pauses("move_pause_idle", False, 50)

    def move_pause_busy(self):
        return self.measure_pauses("move_pause_busy", True, 150)

    def move_pause_zfs(self):
        """Beside the others: zfs-fuse is not what runs anywhere."""
        dataset = self.volume(SMALL)
        idle, busy = (self.pauses(dataset, writes, ZFS_PAUSES) for writes in (False, True))
        self.delete_datasets([dataset])
        return emit("move_pause_zfs", statistics.median(idle), "ms", min=round(min(idle)), max=round(max(idle)), rounds=len(idle),
                    gigabytes=SMALL, busy=round(statistics.median(busy), 1), busy_min=round(min(busy)), busy_max=round(max(busy)),
                    zfs="zfs-fuse")

    # --- throughput and memory -------------------------------------------------------------------------------------

    def timed_move(self, dataset, source, target):
        begun = time.monotonic()
        self.move(dataset, target)
        self.settled(dataset, target)
        took = time.monotonic() - begun
        say(f"{source} to {target}: {took:.1f} s")
        return took

    def move_throughput_btrfs(self):
        gigabytes = THROUGHPUT_FILES // 16
        dataset = self.volume(gigabytes)
        ours, theirs, plain = [], [], []
        hosts = ["h1", "h2"]
        for _ in range(3):
            theirs.append(self.by_hand(dataset, *hosts, tls=True))
            plain.append(self.by_hand(dataset, *hosts, tls=False))
            ours.append(self.timed_move(dataset, *hosts))
            hosts.reverse()
        self.delete_datasets([dataset])
        rate = [gigabytes * GIB / MIB / statistics.median(times) for times in (ours, theirs, plain)]
        return emit("move_throughput_btrfs", rate[0], "MiB/s", theirs=rate[1], ratio_goal=0.9,
                    peer="btrfs send | socat with TLS 1.3 | btrfs receive, then a sync", plain_pipe=round(rate[2]),
                    gigabytes=gigabytes)

    def by_hand(self, dataset, source, target, tls):
        """The same volume, sent and received by the stock programs."""
        pools = self.pools(source, target)
        here, there = (f"{pools[host]}/by-hand" for host in (source, target))
        self.on(source, "sh", "-ec", 'mkdir -p "$1"; btrfs subvolume snapshot -r "$0" "$1/copy"; sync -f "$1"',
                f"{pools[source]}/flocker/{dataset}/vol", here)
        self.on(target, "mkdir", "-p", there)
        begun = time.monotonic()
        if tls:
            self.through_tls(source, target, f"{here}/copy", there)
        else:
            self.pipe(source, target, f"{here}/copy", there)
        self.on(target, "sync", "-f", there)
        took = time.monotonic() - begun
        for host, folder in ((source, here), (target, there)):
            self.on(host, "sh", "-ec", 'btrfs subvolume delete "$0/copy"; rmdir "$0"; btrfs filesystem sync "$1"; '
                    'btrfs subvolume sync "$1"', folder, pools[host])
        say(f"by hand{' with TLS' if tls else ''}: {took:.1f} s")
        return took

    def pools(self, *hosts):
        return {host: self.on(host, "findmnt", "-n", "-o", "TARGET", "-t", "btrfs", "--list").split()[0] for host in hosts}

    def pipe(self, source, target, snapshot, there, *parent):
        with subprocess.Popen(self.enter(source, "btrfs", "send", "-q", "--proto=2", "--compressed-data", *parent, snapshot),
                              stdout=subprocess.PIPE, env=self.environment()) as sender:
            subprocess.run(self.enter(target, "btrfs", "receive", "-q", there), stdin=sender.stdout, check=True, timeout=600,
                           env=self.environment())
        if sender.returncode:
            raise lab.WaitTimeout("btrfs send by hand failed")

    def through_tls(self, source, target, snapshot, there):
        options = "cert=/etc/flocker/node.crt,key=/etc/flocker/node.key,cafile=/etc/flocker/cluster.crt"
        with subprocess.Popen(self.enter(target, "sh", "-ec",
                                         f'socat -u -b1048576 OPENSSL-LISTEN:4600,reuseaddr,verify=1,{options} STDOUT | '
                                         'btrfs receive -q "$0"', there), env=self.environment()) as receiver:
            time.sleep(0.3)
            self.on(source, "sh", "-ec",
                    'btrfs send -q --proto=2 --compressed-data "$0" | socat -u -b1048576 STDIN '
                    f'OPENSSL:{self.cluster.address(target)}:4600,verify=0,{options}', snapshot, timeout=600)
            if receiver.wait(600):
                raise lab.WaitTimeout("btrfs receive by hand failed")

    def move_rss(self):
        dataset = self.volume(BIG)
        with MemoryPeak([self.pid(host, "agent") for host in ("h1", "h2")]) as peak:
            self.timed_move(dataset, "h1", "h2")
        self.delete_datasets([dataset])
        return emit("move_rss", peak.most / MIB, "MiB", goal=32, gigabytes=BIG)


class ZfsMoves(Moves):
    backend = "zfs"


class Guest:
    """OpenZFS in a User-Mode Linux, which is thrown away; bench/zfs_streams runs in it."""

    def __init__(self):
        say("building the guest with OpenZFS, if there is none yet")
        if subprocess.run([GUEST, "build"], check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=3600).returncode:
            raise NotMeasured("there is no guest with OpenZFS: lab/uml-zfs build says why")
        self.directory = tempfile.mkdtemp(prefix="flocker-guest-", dir="/var/tmp")

    def down(self):
        shutil.rmtree(self.directory)

    def move_throughput_zfs(self):
        disks = []
        for disk in ("a", "b"):
            with open(os.path.join(self.directory, disk), "wb") as f:
                f.truncate(6 << 30)
            disks += ["--disk", f.name]
        share = os.path.join(self.directory, "share")
        os.mkdir(share)
        done = subprocess.run([GUEST, "run", *disks, "--share", share, os.path.join(CHECKOUT, "bench", "zfs_streams")], check=False,
                              stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=3600)
        if done.returncode:
            raise NotMeasured(f"bench/zfs_streams: exit {done.returncode}")
        with open(os.path.join(share, "result"), encoding="ascii") as f:
            found = json.load(f)
        ours, theirs = (found["mib"] / statistics.median(found[who]) for who in ("ours", "theirs"))
        return emit("move_throughput_zfs", ours, "MiB/s", theirs=theirs, ratio_goal=0.9,
                    peer="zfs send | socat with TLS 1.3 | zfs receive -s, then zpool sync", mib=found["mib"], zfs=found["zfs"],
                    where="both pools in one User-Mode Linux, one processor")


def children(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
            found += [int(child) for child in f.read().split()]
    return found
