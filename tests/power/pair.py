"""Two nodes in a guest of lab/uml-zfs: their pools, and the program that moves between them."""

import os
import subprocess

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
DATASET = "dddddddd-0000-4000-8000-000000000001"  # as in pair.c


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


class Btrfs:
    """Pools on the disks of a guest of lab/uml-zfs."""

    name = "btrfs"
    pools = {"a": "/run/pool-a", "b": "/run/pool-b"}
    disks = {"a": "/dev/ubda", "b": "/dev/ubdb"}

    def make(self, side):
        run("mkfs.btrfs", "-q", "-f", self.disks[side])

    def find(self, side):
        os.mkdir(self.pools[side])
        run("mount", "-t", "btrfs", self.disks[side], self.pools[side])

    def look(self, side, snapshot):
        """The folder with what the snapshot holds."""
        return f"{self.pools[side]}/flocker/{DATASET}/snap/{snapshot}"

    def look_away(self, side):
        pass


class Zfs:
    name = "zfs"
    pools = {"a": "pool-a", "b": "pool-b"}
    disks = Btrfs.disks

    def make(self, side):
        run("zpool", "create", "-f", "-m", "none", self.pools[side], self.disks[side])
        run("zpool", "export", self.pools[side])

    def find(self, side):
        run("zpool", "import", "-f", "-N", "-d", self.disks[side], self.pools[side])

    def look(self, side, snapshot):
        place = f"/run/look-{side}"
        os.makedirs(place, exist_ok=True)
        run("mount", "-t", "zfs", "-o", "ro", f"{self.pools[side]}/flocker/{DATASET}@{snapshot}", place)
        return f"{place}/data"

    def look_away(self, side):
        """What is mounted cannot be destroyed."""
        run("umount", f"/run/look-{side}")


class Pair:
    """The program `pair`; `rate`: bytes a second that it may send."""

    def __init__(self, storage, rate=None):
        self.process = subprocess.Popen(
            [os.path.join(CHECKOUT, "build", "tests", "pair"), storage.name, storage.pools["a"], storage.pools["b"], "/run/pair",
             *([str(rate)] if rate else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if answer[:1] != ["ok"]:
            raise AssertionError(f"{' '.join(words)}: {' '.join(answer)}")
        return answer[1:]
