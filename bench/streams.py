"""The benchmark of receiving btrfs streams: two pools in files, in a mount namespace that nobody else sees."""

import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time

from report import CHECKOUT, MIB, NotMeasured, emit, say

APPLY = os.path.join(CHECKOUT, "build", "bench", "apply")
TURNS = 3  # of ours and theirs
LARGE = 16  # files of 62 MiB, 1 GB together
SMALL = 43000  # files
FOLDER = 430  # of these in one folder


class Streams:
    """All in one temporary directory; its pools are unmounted at the end."""

    def __init__(self):
        if os.geteuid() != 0:
            raise NotMeasured("apply_btrfs mounts pools: it needs root")
        self.directory = tempfile.mkdtemp(prefix="flocker-streams-", dir="/var/tmp")
        try:
            for pool in ("from", "to"):
                self.make_pool(pool)
        except BaseException:
            self.down()
            raise

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def run(self, *argv, **kwargs):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, **kwargs)
        if done.returncode != 0:
            raise NotMeasured(f"{' '.join(argv[:3])}: {done.stderr or done.stdout}")
        return done.stdout

    def make_pool(self, name):
        os.mkdir(self.path(name))
        with open(self.path(name + ".img"), "wb") as f:
            f.truncate(12 << 30)
        self.run("mkfs.btrfs", "-q", self.path(name + ".img"))
        self.run("mount", "-o", "loop", self.path(name + ".img"), self.path(name))

    def down(self):
        for pool in ("from", "to"):
            subprocess.run(["umount", self.path(pool)], capture_output=True, check=False)
        shutil.rmtree(self.directory)

    @staticmethod
    def processor_seconds():
        """Of all programs that ended so far."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    # --- content ---------------------------------------------------------------------------------------------------

    def fill_large(self, volume):
        for i in range(LARGE):
            with open(os.path.join(volume, str(i)), "wb") as f:
                for _ in range(62):
                    f.write(os.urandom(MIB))

    def fill_small(self, volume):
        block = os.urandom(64 * MIB)
        for i in range(SMALL):
            folder = os.path.join(volume, str(i // FOLDER))
            if i % FOLDER == 0:
                os.mkdir(folder)
            size = (i * 7919) % 48000
            at = (i * 104729) % (len(block) - size)
            with open(os.path.join(folder, str(i)), "wb") as f:
                f.write(block[at:at + size])

    def make_stream(self, fill):
        volume, snapshot, stream = self.path("from", "volume"), self.path("from", "snapshot"), self.path("stream")
        self.run("btrfs", "subvolume", "create", volume)
        fill(volume)
        self.run("btrfs", "subvolume", "snapshot", "-r", volume, snapshot)
        self.run("btrfs", "-q", "send", "--proto", "2", "--compressed-data", "-f", stream, snapshot)
        self.run("btrfs", "subvolume", "delete", snapshot, volume)
        return stream

    # --- turns -----------------------------------------------------------------------------------------------------

    def settle(self):
        """What was deleted is gone, and the stream is in memory."""
        self.run("btrfs", "filesystem", "sync", self.path("to"))
        self.run("btrfs", "subvolume", "sync", self.path("to"))
        with open(self.path("stream"), "rb") as f:
            while f.read(MIB):
                pass

    def ours(self):
        """Seconds, and seconds of a processor."""
        for name in ("state", "mounts"):
            os.makedirs(self.path(name), exist_ok=True)
        used = self.processor_seconds()
        with open(self.path("stream"), "rb") as f:
            seconds = self.run(APPLY, self.path("to") + "/", self.path("state"), self.path("mounts"), stdin=f)
        return float(seconds), self.processor_seconds() - used

    def theirs(self):
        """btrfs receive ends before its data are on disk; a snapshot of what it made sees to that, and is what stays."""
        got, kept = self.path("to", "snapshot"), self.path("to", "kept")
        start, used = time.monotonic(), self.processor_seconds()
        with open(self.path("stream"), "rb") as f:
            self.run("btrfs", "-q", "receive", "-e", self.path("to"), stdin=f)
        self.run("btrfs", "subvolume", "snapshot", "-r", got, kept)
        self.run("btrfs", "subvolume", "delete", got)
        both = time.monotonic() - start, self.processor_seconds() - used
        self.run("btrfs", "subvolume", "delete", kept)
        return both

    def compare(self, kind, fill):
        say(f"apply_btrfs: {kind}")
        self.make_stream(fill)
        ours, theirs = [], []
        for _ in range(TURNS):
            self.settle()
            ours.append(self.ours())
            self.settle()
            theirs.append(self.theirs())
        size = os.path.getsize(self.path("stream")) / MIB
        a, b = (statistics.median(seconds for seconds, _ in turns) for turns in (ours, theirs))
        x, y = (statistics.median(used for _, used in turns) for turns in (ours, theirs))
        return emit("apply_btrfs_" + kind, size / a, "MiB/s", theirs=size / b, peer="btrfs receive, then a snapshot of it",
                    ratio_goal=0.9, processor_s=round(x, 2), their_processor_s=round(y, 2))

    def apply_btrfs(self):
        met = self.compare("large", self.fill_large)
        return self.compare("small", self.fill_small) and met
