#!/usr/bin/python3
"""The array of xtremio.py with real disks: each volume is a LUN of the kernel's own iSCSI target (LIO), and its hosts log in with the real
iscsiadm. Only for a kernel that is thrown away (lab/uml-zfs run --iscsi), and started as xtremio.py.

Two hosts live in one kernel: each has an initiator name and sessions of its own, and below its HOSTROOT a /sys in which there are only
these sessions and the disks that came over them. What is in it are links to the kernel's own files; pipes are only the files `scan`,
so that a new disk has its link. A HOSTROOT of "/" sees the kernel as it is, if no other host is logged in.

The setting "portals" says how many portals the array has: each is a target of its own, and gives a host a path of its own. /control takes
cut: [targets], whose sessions end and cannot come back until heal: [targets].
"""

import glob
import os
import shutil
import subprocess
import uuid

import common

from xtremio import TARGETS, Host, XtremIO

CORE = "/sys/kernel/config/target/core/iblock_0"
ISCSI = "/sys/kernel/config/target/iscsi"
ADDRESSES = ["127.0.0.1", "127.0.0.2"]
SAN = os.path.join(os.path.dirname(os.path.realpath(__file__)), "san")


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def read(path):
    try:
        with open(path, encoding="ascii") as f:
            return f.read().strip()
    except OSError:  # it went away meanwhile
        return ""


def group(target):
    return f"{ISCSI}/{target}/tpgt_1"


def iscsiadm(*words):
    path = ":".join(p for p in os.environ["PATH"].split(":") if os.path.realpath(p) != SAN)
    return subprocess.run([shutil.which("iscsiadm", path=path), *words], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)


class IscsiHost(Host):
    """An interface of iscsiadm, with an initiator name."""

    def __init__(self, array, name, root, number):  # pylint: disable=super-init-not-called
        self.array, self.name, self.root, self.devices = array, name, root, {}
        self.iqn, self.wwpns, self.watched = f"iqn.2026-01.test:{name}", [], set()
        shutil.rmtree(f"{root}/sys", ignore_errors=True)
        for folder in ("sys/block", "sys/class/scsi_device", "sys/class/iscsi_session", "etc/iscsi", "run"):
            os.makedirs(f"{root}/{folder}", exist_ok=True)
        if not os.path.islink(f"{root}/dev"):
            os.rmdir(f"{root}/dev")
            os.symlink("/dev", f"{root}/dev")
        self.write("etc/iscsi/initiatorname.iscsi", f"InitiatorName={self.iqn}")
        iscsiadm("-m", "iface", "-I", name, "-o", "new")
        iscsiadm("-m", "iface", "-I", name, "-o", "update", "-n", "iface.initiatorname", "-v", self.iqn)

    # ---- the kernel's ----

    def sessions(self):
        """Of each: its name, the path to it, the number of its adapter."""
        for path in glob.glob("/sys/class/iscsi_session/session*"):
            real = os.path.realpath(path)
            if read(f"{path}/initiatorname") == self.iqn and "/host" in real:
                yield os.path.basename(path), real, real.split("/host")[1].split("/")[0]

    def has_session(self, target):
        return any(read(f"{path}/targetname") == target for _, path, _ in self.sessions())

    def is_known(self):
        return any(i["port"] == self.iqn for i in self.array.objects["initiators"].values())

    def addresses(self):
        return [os.path.basename(p) for _, _, n in self.sessions() for p in glob.glob(f"/sys/class/scsi_device/{n}:*")]

    def disks(self):
        return {os.path.basename(p): f"/sys/class/scsi_device/{a}" for a in self.addresses() for p in glob.glob(f"/sys/class/scsi_device/{a}/device/block/*")}

    # ---- what the host sees of it ----

    def show(self, folder, wanted):
        """`wanted`: name -> target of the link."""
        for name in os.listdir(f"{self.root}/{folder}"):
            if name not in wanted:
                os.unlink(f"{self.root}/{folder}/{name}")
        for name, target in wanted.items():
            if not os.path.lexists(f"{self.root}/{folder}/{name}"):
                os.symlink(target, f"{self.root}/{folder}/{name}")

    def refresh(self):
        sessions = list(self.sessions())
        for _, _, n in sessions:
            if n not in self.watched:
                self.watched.add(n)
                self.pipe(f"sys/class/scsi_host/host{n}/scan", ("scan", self, f"host{n}"))
        self.show("sys/block", {d: f"/sys/block/{d}" for d in self.disks()})
        self.show("sys/class/scsi_device", {a: f"/sys/class/scsi_device/{a}" for a in self.addresses()})
        self.show("sys/class/iscsi_session", {name: path for name, path, _ in sessions})

    def look(self, adapter, lun):
        try:
            write(f"/sys/class/scsi_host/{adapter}/scan", f"0 - {lun}\n")
        except OSError:
            pass  # the session has ended
        self.refresh()

    def has_paths(self, volume):
        return any(read(f"{d}/device/wwid") == f"naa.{volume['shown']}" for d in self.disks().values())

    def shown(self):
        paths = {}
        for name, d in sorted(self.disks().items()):
            for v in self.array.objects["volumes"].values():
                if read(f"{d}/device/wwid") == f"naa.{v['shown']}":
                    paths.setdefault(v["name"], {"paths": [], "map": None})["paths"].append(name)
        return paths

    # ---- its life ----

    def logout(self):
        for name, _, _ in list(self.sessions()):
            iscsiadm("-m", "session", "-r", name.removeprefix("session"), "-u")
        self.refresh()

    def reboot(self):
        self.logout()


class Iscsi(XtremIO):
    SETTINGS = {**XtremIO.SETTINGS, "portals": 1}
    HOST = IscsiHost

    def __init__(self, folder, hosts):
        os.makedirs(CORE, exist_ok=True)
        for (target, _), address in zip(TARGETS, ADDRESSES):
            os.makedirs(f"{group(target)}/np/{address}:3260")
            write(f"{group(target)}/attrib/authentication", "0")
            write(f"{group(target)}/enable", "1")
        super().__init__(folder, hosts)

    @property
    def PORTALS(self):  # noqa: N802  pylint: disable=invalid-name
        return [f"{a}/8" for a in ADDRESSES[:self.settings["portals"]]]

    def tick(self):
        for host in self.real_hosts:
            host.refresh()

    def close(self):
        super().close()
        for acl in glob.glob(f"{ISCSI}/iqn.*/tpgt_1/acls/*"):
            os.rmdir(acl)

    def change(self, what):
        super().change(what)
        for target in what.get("cut", []):
            write(f"{group(target)}/enable", "0")
        for target in what.get("heal", []):
            write(f"{group(target)}/enable", "1")

    def run_iscsiadm(self, words):
        """For each host that the array knows and that has no session there: the driver's own is one of them."""
        target = words[words.index("-T") + 1]
        for host in self.real_hosts:
            if host.is_known() and not host.has_session(target):
                done = iscsiadm(*words, "-I", host.name)
                host.refresh()
                if done.returncode:
                    return f"{done.returncode} {' '.join(done.stderr.split())}"
        return "0"

    # ---- volumes ----

    def made(self, volume):
        volume["loop"] = subprocess.run(["losetup", "-f", "--show", volume["file"]], check=True, capture_output=True, text=True).stdout.strip()
        serial = uuid.uuid4().hex
        core = volume["core"] = f"{CORE}/{serial}"
        os.mkdir(core)
        write(f"{core}/control", f"udev_path={volume['loop']}")
        write(f"{core}/wwn/vendor_id", "XtremIO")
        write(f"{core}/wwn/vpd_unit_serial", serial)
        write(f"{core}/enable", "1")
        for target, _ in TARGETS:
            lun = f"{group(target)}/lun/lun_{volume['index']}"
            os.mkdir(lun)
            os.symlink(core, f"{lun}/core")
        return f"6001405{serial[:25]}"  # as LIO makes it from the serial number

    def removed(self, volume):
        for target, _ in TARGETS:
            lun = f"{group(target)}/lun/lun_{volume['index']}"
            os.unlink(f"{lun}/core")
            os.rmdir(lun)
        os.rmdir(volume["core"])
        subprocess.run(["losetup", "-d", volume["loop"]], check=True)
        super().removed(volume)

    def grown(self, volume):
        subprocess.run(["losetup", "-c", volume["loop"]], check=True)

    # ---- who sees them ----

    def create_initiator(self, body):
        answer = super().create_initiator(body)
        i = self.named("initiators", body["initiator-name"])
        if i["port"].startswith("iqn."):
            for target, _ in TARGETS:
                os.mkdir(f"{group(target)}/acls/{i['port']}")
        return answer

    def places(self, lun_map):
        """A mapped LUN of each initiator of its group, at each target."""
        return [(target, f"{group(target)}/acls/{i['port']}/lun_{lun_map['lun']}") for target, _ in TARGETS for i in self.objects["initiators"].values()
                if i["ig"] == lun_map["ig"] and i["port"].startswith("iqn.")]

    def mapped(self, lun_map):
        for target, place in self.places(lun_map):
            os.mkdir(place)
            os.symlink(f"{group(target)}/lun/lun_{lun_map['vol']}", f"{place}/lun")

    def unmapped(self, lun_map):
        for _, place in self.places(lun_map):
            os.unlink(f"{place}/lun")
            os.rmdir(place)


if __name__ == "__main__":
    common.main(Iscsi)
