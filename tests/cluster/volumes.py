"""What the tests of datasets and moves look at: the hosts' mounts and pools as they are, and who writes what.

Everything but what a ZFS pool holds is read through /proc/<PID 1 of the host>, without a program on the host: fast enough to be done all the time
while something else goes on.
"""

import hashlib
import os
import stat
import threading
import time

from lab import WaitTimeout, memory, wait_until

POOL = "var/lib/flocker/btrfs-pool/flocker"
ZFS_TOP = "flocker/flocker"
ZFS_MARKS = "var/lib/flocker/zfs/marks"


def host_pid(cluster, host):
    with open(cluster.path(host, "pid"), encoding="ascii") as f:
        return int(f.read())


def inside(cluster, host, *parts):
    """A path on a host as this process can open it."""
    return os.path.join(f"/proc/{host_pid(cluster, host)}/root", *(p.lstrip("/") for p in parts))


def volume(cluster, host, dataset, *parts):
    return inside(cluster, host, "flocker", dataset, *parts)


def mount_points(cluster, host):
    """Of the host's root namespace; nothing when the host is dead."""
    try:
        with open(f"/proc/{host_pid(cluster, host)}/mountinfo", encoding="utf-8") as f:
            return [line.split()[4] for line in f]
    except (OSError, ValueError):
        return []


def is_mounted(cluster, host, dataset):
    return f"/flocker/{dataset}" in mount_points(cluster, host)


def zfs_pool(cluster, host, dataset):
    """The same for ZFS: the marks, and file systems and snapshots by the names that btrfs has for them."""
    found = set()
    try:
        found.update(os.listdir(inside(cluster, host, ZFS_MARKS, dataset)))
    except FileNotFoundError:
        pass
    for line in cluster.run(host, "zfs", "list", "-H", "-r", "-t", "all", "-o", "name", ZFS_TOP).splitlines():
        name, _, snapshot = line.removeprefix(f"{ZFS_TOP}/").partition("@")
        if name.startswith(dataset):
            found.add(f"snap/{snapshot}" if snapshot else {dataset: "vol"}.get(name, name))
    return found


def pool(cluster, host, dataset):
    """What the host's pool holds of a dataset: names of files and subvolumes, those in folders as folder/name."""
    if cluster.backend == "zfs":
        return zfs_pool(cluster, host, dataset)
    found = set()
    top = inside(cluster, host, POOL, dataset)
    try:
        for name in os.listdir(top):
            if name in ("snap", "incoming"):
                found.update(f"{name}/{part}" for part in os.listdir(os.path.join(top, name)))
            else:
                found.add(name)
    except FileNotFoundError:
        pass
    return found


def has_place(cluster, host, dataset):
    return os.path.lexists(volume(cluster, host, dataset))


def state(cluster, dataset):
    """GET /v1/state/datasets/<id>: owner, holders, transfer, reason, ..."""
    return cluster.api.expect("GET", f"/v1/state/datasets/{dataset}")


def container_state(cluster, name):
    return cluster.api.expect("GET", f"/v1/state/containers/{name}")


def wait_reason(cluster, dataset, code, timeout=20):
    """Waits until the dataset is held up for that reason; returns its text."""
    def told():
        reason = state(cluster, dataset)["reason"]
        return (reason,) if reason and reason["code"] == code else None
    return wait_until(told, f"reason {code} of dataset {dataset}", timeout, 0.05)[0]["text"]


def create(cluster, host, **settings):
    dataset = cluster.api.create_dataset(cluster.node(host), **settings)
    cluster.wait_mounted(dataset, host)
    return dataset


def kept(cluster, host, owner, replica):
    """What the pool of a host holds of a dataset that is settled on `owner`."""
    common = {f"snap/{replica['snapshot']}"} if replica else set()
    if host == owner:
        return {"vol", "mark"} | common
    if replica and replica["node"] == cluster.node(host):
        return {"mark"} | common | ({"vol"} if cluster.backend == "zfs" else set())  # there snapshots lie in the file system
    return set()


def wait_settled(cluster, dataset, host, others, timeout=30):
    """The dataset is mounted on the host and nowhere else, and nothing of it is left anywhere else: no mount, no mount
    point, no subvolume, no partial, no snapshot; but for a replica, which is exactly the one snapshot that it is to be."""
    def settled():
        now = state(cluster, dataset)
        replica = now["replica"]
        holders = {cluster.node(host)} | ({replica["node"]} if replica else set())
        if now["owner"] != cluster.node(host) or set(now["holders"]) != holders or now["transfer"] or now["reason"]:
            return None
        places = {h: has_place(cluster, h, dataset) or is_mounted(cluster, h, dataset) for h in others}
        return (is_mounted(cluster, host, dataset) and not any(places.values()) and
                (cluster.backend not in ("btrfs", "zfs") or
                 all(pool(cluster, h, dataset) == kept(cluster, h, host, replica) for h in (host, *others))))
    try:
        wait_until(settled, f"dataset {dataset} settled on {host}", timeout, 0.05)
    except WaitTimeout as e:
        what = {h: (is_mounted(cluster, h, dataset), has_place(cluster, h, dataset), pool(cluster, h, dataset))
                for h in (host, *others)}
        raise WaitTimeout(f"{e}; mounted, place, pool: {what}; state: {state(cluster, dataset)}") from None
    entries = [d for d in cluster.api.dataset_states() if d["dataset_id"] == dataset]
    assert [(d["primary"], d["path"]) for d in entries] == [(cluster.node(host), f"/flocker/{dataset}")]


def wait_deleted(cluster, dataset, hosts):
    """Nothing of it is left on the hosts."""
    cluster.wait_gone(dataset)

    def nothing():
        return not any(pool(cluster, h, dataset) or has_place(cluster, h, dataset) or is_mounted(cluster, h, dataset)
                       for h in hosts)
    wait_until(nothing, f"nothing left of the deleted dataset {dataset}", 20, 0.05)


def delete(cluster, dataset, hosts):
    cluster.api.delete_dataset(dataset)
    wait_deleted(cluster, dataset, hosts)


# --- content ---------------------------------------------------------------------------------------------------------


def fill(top, files=60, size=3000, big=1 << 20):
    """Files of many kinds: nested, empty, large, with a hole, links, a long name."""
    for i in range(files):
        folder = os.path.join(top, f"d{i % 5}", f"e{i % 3}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"f{i}"), "wb") as f:
            f.write(os.urandom(size * i // max(1, files)))
    with open(os.path.join(top, "big"), "wb") as f:
        f.write(os.urandom(big))
    with open(os.path.join(top, "hole"), "wb") as f:
        f.seek(5 << 20)
        f.write(b"end")
    os.symlink("big", os.path.join(top, "symlink"))
    os.link(os.path.join(top, "big"), os.path.join(top, "hard"))
    os.chmod(os.path.join(top, "big"), 0o4751)
    os.chown(os.path.join(top, "hole"), 1234, 4321)
    with open(os.path.join(top, "n" * 255), "wb"):
        pass
    os.sync()


def holes_are_told(cluster):
    """FUSE passes no SEEK_HOLE on to zfs-fuse: there, holes are read."""
    return cluster.backend != "zfs"


def fill_odd(cluster, top):
    """What else a volume may hold, in a folder that fill() has filled."""
    os.mknod(os.path.join(top, "device"), stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mkfifo(os.path.join(top, "fifo"))
    os.setxattr(os.path.join(top, "big"), "user.colour", b"blue\0green")
    os.setxattr(os.path.join(top, "hole"), "trusted.mark", os.urandom(2000))
    acl = bytes.fromhex("0200000001000600ffffffff02000400d204000004000400ffffffff10000600ffffffff20000400ffffffff")
    os.setxattr(os.path.join(top, "big"), "system.posix_acl_access", acl)
    size = (10 << 30) if holes_are_told(cluster) else (64 << 20)
    with open(os.path.join(top, "sparse"), "wb") as f:
        f.truncate(size)
        f.seek(size // 10 * 7)
        f.write(b"far out")


def data_of(path, total):
    """The bytes of a file; where there are none, how far that goes."""
    with open(path, "rb") as f:
        end = at = 0
        size = os.fstat(f.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(f.fileno(), end, os.SEEK_DATA)
            except OSError:  # a hole until the end
                break
            end = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            total.update(f"{at} {end}\n".encode())
            while at < end:
                part = os.pread(f.fileno(), min(1 << 20, end - at), at)
                total.update(part)
                at += len(part)


def attributes(path):
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(os.listxattr(path, follow_symlinks=False))}


def digest(top, skip=("log",), exact=False):
    """Of names, kinds, modes, owners and bytes of everything in a folder; `exact`: also of times, holes, devices, extended
    attributes, folders, and which names are one file."""
    total = hashlib.sha256()
    linked = {}
    for folder, names, files in os.walk(top):
        names.sort()
        if exact:
            st = os.lstat(folder)
            total.update(f"{os.path.relpath(folder, top)!r} {st.st_mode:o} {st.st_uid} {st.st_gid} {attributes(folder)!r}\n".encode())
        for name in sorted(files) + [n for n in names if os.path.islink(os.path.join(folder, n))]:
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, top)
            if shown in skip:
                continue
            st = os.lstat(path)
            total.update(f"{shown!r} {st.st_mode:o} {st.st_uid} {st.st_gid} {st.st_size} {st.st_nlink}\n".encode())
            if exact:
                first = linked.setdefault(st.st_ino, shown) if st.st_nlink > 1 else shown
                total.update(f"{st.st_mtime_ns} {st.st_rdev} {first!r} {attributes(path)!r}\n".encode())
            if os.path.islink(path):
                total.update(os.readlink(path).encode())
            elif not stat.S_ISREG(st.st_mode):
                pass
            elif exact:
                data_of(path, total)
            else:
                with open(path, "rb") as f:
                    total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()


class Background:
    """Something that goes on beside the test until the `with` block ends; what it objects to fails the test."""

    interval = 0.005

    def __init__(self):
        self.error = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def turn(self):
        raise NotImplementedError

    def _run(self):
        try:
            while not self._end.is_set():
                self.turn()
                time.sleep(self.interval)
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e

    def __enter__(self):
        self._thread.start()
        return self

    def stop(self):
        self._end.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def __exit__(self, kind, *_):
        self.stop()
        if self.error and kind is None:
            raise self.error


class Guard(Background):
    """Watches that a dataset is never mounted on two hosts at once."""

    def __init__(self, cluster, dataset, hosts):
        super().__init__()
        self.cluster = cluster
        self.dataset = dataset
        self.hosts = hosts
        self.looks = 0
        self.seen = set()

    def turn(self):
        self.looks += 1
        mounted = [h for h in self.hosts if is_mounted(self.cluster, h, self.dataset)]
        self.seen.update(mounted)
        # Not all hosts were looked at in the same moment: the first must be so still after the last was.
        if len(mounted) > 1 and is_mounted(self.cluster, mounted[0], self.dataset):
            raise AssertionError(f"{self.dataset} is mounted on {' and '.join(mounted)}")


class MemoryPeak(Background):
    """Watches for the most private dirty memory of any of some processes."""

    interval = 0.2

    def __init__(self, pids):
        super().__init__()
        self.pids = pids
        self.most = 0

    def turn(self):
        self.most = max(self.most, *(memory(pid)[0] for pid in self.pids))


class Writer(Background):
    """Appends numbers to the file `log` of a dataset wherever it is mounted. Each is written and synced with an open of
    its own, so that it holds up no move for long; a number that failed is tried again."""

    interval = 0.02

    def __init__(self, cluster, dataset, hosts):
        super().__init__()
        self.cluster = cluster
        self.dataset = dataset
        self.hosts = hosts
        self.acknowledged = 0
        self.places = []
        host = next(h for h in hosts if is_mounted(cluster, h, dataset))
        with open(volume(cluster, host, dataset, "log"), "w", encoding="ascii"):
            pass

    def turn(self):
        for host in self.hosts:
            try:
                fd = os.open(volume(self.cluster, host, self.dataset, "log"), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            except (OSError, ValueError):
                continue
            try:
                os.write(fd, f"{self.acknowledged + 1}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            self.acknowledged += 1
            if not self.places or self.places[-1] != host:
                self.places.append(host)
            return

    def check(self, host):
        """Every acknowledged number is there, once and in order."""
        with open(volume(self.cluster, host, self.dataset, "log"), encoding="ascii") as f:
            numbers = [int(line) for line in f]
        assert numbers == list(range(1, len(numbers) + 1)), numbers[-20:]
        assert len(numbers) in (self.acknowledged, self.acknowledged + 1), (numbers[-1:], self.acknowledged)
