#!/usr/bin/python3
"""An XtremIO array for tests, with its management server (XMS, REST version 2) and hosts with paths to it: strict about everything that the
real one refuses, with faults on demand. How it is started, and /control: common.py. The facts are from the Cinder driver of OpenStack and
the driver of Flocker 1; what neither says is marked "assumed", and the driver must not depend on it.

Below HOSTROOT is what the driver reads of its host: /etc/iscsi/initiatorname.iscsi, sessions of iSCSI, Fibre Channel ports, and block
devices. Files that the kernel acts on are pipes: what is written to a `scan` lets a LUN appear that is mapped to the host's initiator group,
what is written to a `delete` takes the path away. With the setting "multipath" a map of all paths is made. The programs in san/ (multipath,
iscsiadm) talk to DIR/san (FLOCKER_TEST_SAN).

Things that must not happen are counted in "violations": a path deleted while its device is in use, a volume unmapped while its host still
has paths to it (unless `cut` is set: then somebody else does it), scans of all LUNs.
"""

import base64
import os
import re
import selectors
import shutil
import stat
import subprocess
import threading
import time
import urllib.parse

import common
from common import Answer, Array

BASE = "/api/json/v2/types/"
SIZE = re.compile(r"([1-9]\d{0,15})([kmgt])")
UNITS = {"k": 1, "m": 1 << 10, "g": 1 << 20, "t": 1 << 30}  # KiB
IDS = {"volumes": "vol-id", "initiator-groups": "ig-id", "initiators": "initiator-id", "lun-maps": "mapping-id"}
ERRORS = {"volumes": "vol_obj", "initiator-groups": "ig_obj", "initiators": "initiator_obj", "lun-maps": "lun_map_obj"}  # all but vol_obj assumed
TARGETS = [("iqn.2008-05.com.xtremio:test-1", "21:00:00:24:ff:00:00:01"), ("iqn.2008-05.com.xtremio:test-2", "21:00:00:24:ff:00:00:02")]


class Failure(Exception):
    def __init__(self, message, status=400):
        super().__init__(message)
        self.message, self.status = message, status


class Device:
    """A volume on a host: one loop device, however many paths."""

    def __init__(self, host, volume):
        self.host, self.volume, self.paths, self.map = host, volume, {}, None
        self.loop = subprocess.run(["losetup", "-f", "--show", volume["file"]], check=True, capture_output=True, text=True).stdout.strip()

    def node(self, name):
        os.mknod(f"{self.host.root}/dev/{name}", stat.S_IFBLK | 0o600, os.stat(self.loop).st_rdev)

    def in_use(self):
        """For longer than somebody needs who looks at it, or flushes another path."""
        for _ in range(10):
            try:
                os.close(os.open(self.loop, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
                return False
            except OSError:
                time.sleep(0.01)
        return True

    def release(self):
        subprocess.run(["losetup", "-d", self.loop], check=False, stderr=subprocess.DEVNULL)


class Host:
    """What the kernel of a host shows. Adapters: host2, host3 (iSCSI), host8, host9 (Fibre Channel)."""

    def __init__(self, array, name, root, number):
        self.array, self.name, self.root, self.devices, self.letters = array, name, root, {}, 0
        self.iqn, self.wwpns = f"iqn.2026-01.test:{name}", [f"10:00:00:00:c9:00:{number:02x}:{i:02x}" for i in (1, 2)]
        self.adapters = {"host2": 0, "host3": 1, "host8": 0, "host9": 1}
        shutil.rmtree(f"{root}/sys", ignore_errors=True)
        for folder in ("sys/block", "sys/class/scsi_device", "sys/class/iscsi_session", "dev", "etc/iscsi", "run"):
            os.makedirs(f"{root}/{folder}", exist_ok=True)
        self.write("etc/iscsi/initiatorname.iscsi", f"## of the tests\nInitiatorName={self.iqn}")
        for adapter, i in self.adapters.items():
            self.pipe(f"sys/class/scsi_host/{adapter}/scan", ("scan", self, adapter))
            if adapter in ("host8", "host9"):
                self.write(f"sys/class/fc_host/{adapter}/port_name", "0x" + self.wwpns[i].replace(":", ""))
                rport = f"sys/class/fc_remote_ports/rport-{adapter[4:]}:0-{i}"
                self.write(f"{rport}/port_name", "0x" + TARGETS[i][1].replace(":", ""))
                self.write(f"{rport}/port_state", "Online")
                self.write(f"{rport}/scsi_target_id", "0")
        if array.settings["sessions"]:
            self.login(TARGETS[0][0])
            self.login(TARGETS[1][0])

    def write(self, path, text):
        os.makedirs(os.path.dirname(f"{self.root}/{path}"), exist_ok=True)
        with open(f"{self.root}/{path}", "w", encoding="ascii") as f:
            f.write(f"{text}\n")

    def pipe(self, path, what):
        os.makedirs(os.path.dirname(f"{self.root}/{path}"), exist_ok=True)
        os.mkfifo(f"{self.root}/{path}")
        self.array.watch(f"{self.root}/{path}", what)

    def login(self, target):
        i = [t[0] for t in TARGETS].index(target)
        session = f"session{i + 1}"
        folder = f"sys/devices/platform/host{i + 2}/{session}/iscsi_session/{session}"
        if os.path.lexists(f"{self.root}/sys/class/iscsi_session/{session}"):
            return
        self.write(f"{folder}/targetname", target)
        self.write(f"{folder}/state", "LOGGED_IN")
        os.symlink(f"../../devices/platform/host{i + 2}/{session}/iscsi_session/{session}", f"{self.root}/sys/class/iscsi_session/{session}")

    def logout(self):
        for session in ("session1", "session2"):
            if os.path.lexists(f"{self.root}/sys/class/iscsi_session/{session}"):
                os.unlink(f"{self.root}/sys/class/iscsi_session/{session}")
        shutil.rmtree(f"{self.root}/sys/devices", ignore_errors=True)

    def ports(self, adapter):
        i = self.adapters[adapter]
        if adapter in ("host8", "host9"):
            return [self.wwpns[i]]
        return [self.iqn] if os.path.lexists(f"{self.root}/sys/class/iscsi_session/session{i + 1}") else []

    def scan(self, adapter, text):
        m = re.fullmatch(r"([-\d]+) ([-\d]+) (\d+)", text)
        if not m:
            self.array.violate(f"scan of {text}")
            return
        if m[1] not in ("-", "0") or m[2] not in ("-", "0"):
            return
        self.look(adapter, int(m[3]))

    def look(self, adapter, lun):
        """Does the array show something there?"""
        address = f"{adapter[4:]}:0:0:{lun}"
        for lun_map in self.array.objects["lun-maps"].values():
            if lun_map["lun"] == lun and self.array.group_has(lun_map["ig"], self.ports(adapter)) and \
                    not os.path.exists(f"{self.root}/sys/class/scsi_device/{address}"):
                self.appear(address, self.array.objects["volumes"][lun_map["vol"]])

    def appear(self, address, volume):
        d = self.devices.setdefault(volume["guid"], None) or Device(self, volume)
        self.devices[volume["guid"]] = d
        if self.array.settings["paths"] <= len(d.paths):
            return
        name = "sd" + "abcdefghijklmnopqrstuvwxyz"[self.letters % 26] + str(self.letters // 26 or "")
        self.letters += 1
        d.node(name)
        d.paths[name] = address
        new, wwid = f"sys/new/{name}", self.array.settings["wwid"] or f"naa.{volume['naa']}"
        self.write(f"{new}/size", volume["kib"] * 2)
        self.write(f"{new}/device/wwid", wwid)
        self.write(f"{new}/device/vendor", "XtremIO ")
        self.write(f"{new}/device/rescan", "")
        self.pipe(f"{new}/device/delete", ("delete", self, name))
        os.mkdir(f"{self.root}/{new}/holders")
        os.makedirs(f"{self.root}/sys/class/scsi_device/{address}")
        os.rename(f"{self.root}/{new}", f"{self.root}/sys/block/{name}")
        if self.array.settings["multipath"] and self.array.settings["maps"]:
            self.map(d)

    def map(self, d):
        if not d.map:
            d.map = f"dm-{self.letters}"
            self.letters += 1
            d.node(d.map)
            new = f"sys/new/{d.map}"
            self.write(f"{new}/size", d.volume["kib"] * 2)
            self.write(f"{new}/dm/uuid", f"mpath-3{d.volume['naa']}")
            self.write(f"{new}/dm/name", f"mpath{d.map[3:]}-{self.name}")
            os.mkdir(f"{self.root}/{new}/slaves")
            os.rename(f"{self.root}/{new}", f"{self.root}/sys/block/{d.map}")
        for name in d.paths:
            link = f"{self.root}/sys/block/{d.map}/slaves/{name}"
            if not os.path.lexists(link):
                os.symlink(f"../../{name}", link)
                os.mkdir(f"{self.root}/sys/block/{name}/holders/{d.map}")

    def unmap(self, d):
        for name in d.paths:
            os.rmdir(f"{self.root}/sys/block/{name}/holders/{d.map}")
        self.vanish(d.map)
        d.map = None

    def vanish(self, name):
        os.unlink(f"{self.root}/dev/{name}")
        shutil.rmtree(f"{self.root}/sys/block/{name}")

    def delete(self, name, forced=False):
        for guid, d in list(self.devices.items()):
            if name not in d.paths:
                continue
            if not forced and d.map:
                self.array.violate(f"{name} was deleted below its map")
            self.vanish(name)  # first: what is looked at here would be in use for the driver, too
            if not forced and d.in_use():
                self.array.violate(f"{name} was deleted while in use")
            os.rmdir(f"{self.root}/sys/class/scsi_device/{d.paths.pop(name)}")
            if not d.paths:
                d.release()
                del self.devices[guid]

    def grown(self, volume):
        """As if its paths had been rescanned at once; the map waits for multipathd to be told."""
        d = self.devices.get(volume["guid"])
        if d:
            subprocess.run(["losetup", "-c", d.loop], check=True)
            for name in d.paths:
                self.write(f"sys/block/{name}/size", volume["kib"] * 2)

    def reboot(self):
        for d in list(self.devices.values()):
            if d.map:
                self.unmap(d)
            for name in list(d.paths):
                self.delete(name, forced=True)

    def has_paths(self, volume):
        return volume["guid"] in self.devices

    def shown(self):
        return {d.volume["name"]: {"paths": sorted(d.paths), "map": d.map} for d in self.devices.values()}


class XtremIO(Array):
    SETTINGS = {
        "user": "flocker", "password": "secret+/=", "clusters": ["xbrick1"], "volumes_max": 8192, "busy": 0,
        "sessions": True, "paths": 1, "multipath": False, "maps": True, "wwid": None, "cut": False,
    }

    HOST = Host
    PORTALS = ["10.9.0.1/24", "10.9.0.2/24"]

    def __init__(self, folder, hosts):
        self.selector, self.real_hosts, self.objects = selectors.DefaultSelector(), [], {}
        super().__init__(folder, hosts)
        os.mkfifo(f"{folder}/san")
        self.watch(f"{folder}/san", ("san",))
        threading.Thread(target=self.react, daemon=True).start()

    def reset(self):
        self.close()
        super().reset()
        self.objects = {"volumes": {}, "initiator-groups": {}, "initiators": {}, "lun-maps": {}}
        self.serial, self.violations, self.programs, self.map_with_next = 0, [], [], {}
        self.real_hosts = [self.HOST(self, name, root, n) for n, (name, root) in enumerate(self.hosts.items()) if root]

    def close(self):
        for host in self.real_hosts:
            host.reboot()
        for m in self.objects.get("lun-maps", {}).values():
            self.unmapped(m)
        for v in self.objects.get("volumes", {}).values():
            self.removed(v)

    # ---- what becomes of it in the array: the files are all ----

    def made(self, volume):
        """Returns its NAA."""
        return f"514f0c5{int(volume['guid'], 16):09x}"

    def removed(self, volume):
        os.unlink(volume["file"])

    def mapped(self, lun_map):
        pass

    def unmapped(self, lun_map):
        pass

    def grown(self, volume):
        for host in self.real_hosts:
            host.grown(volume)

    def violate(self, text):
        self.violations.append(text)

    # ---- what hosts do ----

    def watch(self, path, what):
        self.selector.register(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), selectors.EVENT_READ, what)

    def react(self):
        while True:
            for key, _ in self.selector.select():
                lines = os.read(key.fd, 4096).decode().split("\n")
                with self.lock:
                    for line in dict.fromkeys(filter(None, lines)):  # once is enough
                        self.react_to(key, line)

    def react_to(self, key, line):
        kind, *args = key.data
        if kind == "scan":
            args[0].scan(args[1], line.strip())
        elif kind == "delete":
            self.selector.unregister(key.fd)
            os.close(key.fd)
            args[0].delete(args[1])
        elif kind == "san":
            program, *words, answer = line.split(" ")
            self.programs.append([program, *words])
            status = getattr(self, f"run_{program}")(words)
            with open(answer, "w", encoding="ascii") as f:
                f.write(f"{status}\n")

    def run_multipath(self, words):
        for host in self.real_hosts:
            for d in host.devices.values():
                if d.map and words == ["-f", f"mpath{d.map[3:]}-{host.name}"]:
                    if d.in_use():
                        return "1 map in use"
                    host.unmap(d)
                    return "0"
        return "1 no such map"

    def run_multipathd(self, words):
        for host in self.real_hosts:
            for d in host.devices.values():
                if d.map and words == ["resize", "map", f"mpath{d.map[3:]}-{host.name}"]:
                    host.write(f"sys/block/{d.map}/size", d.volume["kib"] * 2)
                    return "0"
        return "1 no such map"

    def run_iscsiadm(self, words):
        if "--login" in words:
            target = words[words.index("-T") + 1]
            if target not in [t[0] for t in TARGETS]:
                return "21 no records found"
            for host in self.real_hosts:
                host.login(target)
        return "0"

    # ---- requests ----

    def action(self, request):
        kind = request.path.split("?")[0].removeprefix(BASE).split("/")[0]
        return f"{request.method} {kind}"

    def answer(self, request):
        try:
            return self.serve(request)
        except Failure as f:
            return Answer({"message": f.message, "error_code": f.status}, f.status)

    def serve(self, request):
        s = self.settings
        if request.headers.get("Authorization") != "Basic " + basic(s["user"], s["password"]):
            raise Failure("login_failed", 401)  # assumed
        path, _, query = request.path.partition("?")
        if not path.startswith(BASE):
            raise Failure("Invalid path", 404)  # assumed
        if s["busy"] > 0:
            s["busy"] -= 1
            raise Failure("system_is_busy")
        kind, _, index = path.removeprefix(BASE).partition("/")
        params = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        if kind in ("clusters", "xms"):
            return self.clusters(kind, request.method, index)
        if kind not in self.objects and kind not in ("iscsi-portals", "targets"):
            raise Failure("invalid_object_type", 404)  # assumed
        if request.method in ("GET", "DELETE"):
            self.check_cluster(dict(params).get("cluster-name"))
            if request.method == "GET":
                return self.get(kind, index, [p for p in params if p[0] != "cluster-name"])
            if kind not in self.objects:
                raise Failure("not_allowed", 405)
            return self.delete(kind, self.find(kind, index, dict(params)))
        body = request.json()
        if not isinstance(body, dict) or "Content-Type" not in request.headers or "json" not in request.headers["Content-Type"]:
            raise Failure("invalid_json")  # assumed
        self.check_cluster(body.pop("cluster-id", None))
        if request.method == "PUT":
            return self.put(kind, self.find(kind, index, dict(params)), body)
        if params or index or kind not in self.objects:
            raise Failure("not_allowed", 405)
        return self.create(kind, body)

    def check_cluster(self, name):
        if name is None and len(self.settings["clusters"]) > 1:
            raise Failure("cluster_id_required")  # assumed
        if name is not None and name not in self.settings["clusters"]:
            raise Failure("sys_obj_not_found")  # assumed

    def clusters(self, kind, method, index):
        if method != "GET":
            raise Failure("not_allowed", 405)
        if kind == "xms":
            if index != "1":
                raise Failure("obj_not_found")
            return Answer({"content": {"name": "xms", "index": 1, "sw-version": "4.2.1-40"}})
        names = self.settings["clusters"]
        return Answer({"clusters": [{"href": f"https://xms{BASE}clusters/{i + 1}", "name": n, "rel": "item"} for i, n in enumerate(names)]})

    def find(self, kind, index, params):
        params = {k: v for k, v in params.items() if k != "cluster-name"}
        if bool(index) == bool(params.get("name")) or set(params) - {"name"}:
            raise Failure("invalid_parameter")  # assumed
        for o in self.objects[kind].values():
            if (index and str(o["index"]) == index) or (not index and o["name"] == params["name"]):
                return o
        raise Failure("obj_not_found")

    def named(self, kind, value):
        """An id in a body: a name, or a number, or a name that looks like one, which then is one."""
        by_index = isinstance(value, int) or (isinstance(value, str) and value.isdigit())
        for o in self.objects[kind].values():
            if (by_index and o["index"] == int(value)) or (not by_index and o["name"] == value):
                return o
        raise Failure(ERRORS[kind] + "_not_found")

    def get(self, kind, index, params):
        plain = dict(params)
        if index or "name" in plain:
            if kind not in self.objects:
                raise Failure("obj_not_found")
            return Answer({"content": self.full(kind, self.find(kind, index, {k: v for k, v in plain.items() if k != "prop"})), "links": []})
        if set(plain) - {"full", "prop", "filter"} or plain.get("full", "1") != "1":
            raise Failure("invalid_parameter")
        found = self.fixed(kind) if kind not in self.objects else [self.full(kind, o) for o in self.objects[kind].values()]
        for key, value in params:
            if key == "filter":
                prop, how, want = value.split(":", 2)
                if how != "eq":
                    raise Failure("invalid_filter")
                found = [o for o in found if str(o.get(prop)) == want]
        if "full" not in plain:
            return Answer({kind: [{"href": f"https://xms{BASE}{kind}/{o['index']}", "name": o["name"], "rel": "item"} for o in found]})
        props = [v for k, v in params if k == "prop"]
        unknown = [p for p in props for o in found if p not in o]
        if unknown:
            raise Failure("invalid_property")  # assumed
        return Answer({kind: [{k: v for k, v in o.items() if not props or k in props} for o in found], "params": {}, "links": []})

    def fixed(self, kind):
        if kind == "iscsi-portals":
            return [{"name": p, "index": i + 1, "ip-addr": p, "ip-port": 3260, "port-address": t[0]}
                    for i, (p, t) in enumerate(zip(self.PORTALS, TARGETS))]
        fc = [{"name": f"X1-SC{i + 1}-fc1", "index": i + 1, "port-type": "fc", "port-state": "up", "port-address": t[1]} for i, t in enumerate(TARGETS)]
        iscsi = [{"name": f"X1-SC{i + 1}-iscsi1", "index": i + 3, "port-type": "iscsi", "port-state": "up", "port-address": t[0]} for i, t in enumerate(TARGETS)]
        return fc + iscsi

    def full(self, kind, o):
        shown = {"name": o["name"], "index": o["index"], "guid": o["guid"], IDS[kind]: [o["guid"], o["name"], o["index"]]}
        if kind == "volumes":
            maps = [m for m in self.objects["lun-maps"].values() if m["vol"] == o["index"]]
            return {**shown, "vol-size": str(o["kib"]), "naa-name": o["naa"], "num-of-lun-mappings": len(maps), "tag-list": o["tags"],
                    "lun-mapping-list": [[self.id("initiator-groups", m["ig"]), ["b" * 32, "Default", 1], m["lun"]] for m in maps]}
        if kind == "initiators":
            return {**shown, "port-address": o["port"], "ig-id": self.id("initiator-groups", o["ig"]), "initiator-conn-state": "connected"}
        if kind == "lun-maps":
            vol, ig = self.objects["volumes"][o["vol"]], self.objects["initiator-groups"][o["ig"]]
            return {**shown, "vol-name": vol["name"], "vol-index": vol["index"], "ig-name": ig["name"], "ig-index": ig["index"], "tg-name": "Default",
                    "lun": o["lun"], "mapping-name": o["name"]}
        return shown

    def id(self, kind, index):
        o = self.objects[kind][index]
        return [o["guid"], o["name"], o["index"]]

    def group_has(self, ig, ports):
        return any(i["ig"] == ig and i["port"] in ports for i in self.objects["initiators"].values())

    # ---- changes ----

    def add(self, kind, name, **more):
        if not name or len(name) > 64 or not name.isprintable():
            raise Failure("invalid_name")  # assumed
        if any(o["name"] == name for o in self.objects[kind].values()):
            raise Failure(ERRORS[kind] + "_name_not_unique")
        index = next(i for i in range(1, 1 << 20) if i not in self.objects[kind])  # numbers are used again
        self.serial += 1
        self.objects[kind][index] = {"name": name, "index": index, "guid": f"{self.serial:032x}", **more}
        return Answer({"links": [{"href": f"https://xms{BASE}{kind}/{index}", "rel": "self"}]}, 201)

    @staticmethod
    def check_keys(body, needed, more=()):
        if not set(needed) <= set(body) or set(body) - set(needed) - set(more):
            raise Failure("invalid_parameter")  # assumed

    def create(self, kind, body):
        return {"volumes": self.create_volume, "initiator-groups": self.create_group, "initiators": self.create_initiator,
                "lun-maps": self.create_map}[kind](body)

    def create_volume(self, body):
        self.check_keys(body, ["vol-name", "vol-size"])
        m = SIZE.fullmatch(body["vol-size"]) if isinstance(body["vol-size"], str) else None
        kib = int(m[1]) * UNITS[m[2]] if m else 0
        if not kib or kib % 1024 or kib > 1 << 41:
            raise Failure("invalid_vol_size")  # assumed
        if len(self.objects["volumes"]) >= self.settings["volumes_max"]:
            raise Failure("too_many_objs")
        path = f"{self.folder}/volume-{self.serial + 1}.img"
        answer = self.add("volumes", body["vol-name"], kib=kib, naa="", tags=[], file=path)
        with open(path, "wb") as f:
            f.truncate(kib * 1024)
        volume = self.named("volumes", body["vol-name"])
        volume["shown"] = self.made(volume)
        return answer

    def create_group(self, body):
        self.check_keys(body, ["ig-name"])
        return self.add("initiator-groups", body["ig-name"])

    def create_initiator(self, body):
        self.check_keys(body, ["initiator-name", "ig-id", "port-address"])
        port = body["port-address"]
        if not re.fullmatch(r"iqn\.[a-z0-9:.-]+|([0-9a-f]{2}:){7}[0-9a-f]{2}", port):
            raise Failure("invalid_port_address")  # assumed
        if any(i["port"] == port for i in self.objects["initiators"].values()):
            raise Failure("port_address_not_unique")  # assumed
        return self.add("initiators", body["initiator-name"], port=port, ig=self.named("initiator-groups", body["ig-id"])["index"])

    def create_map(self, body):
        self.check_keys(body, ["vol-id", "ig-id"], ["lun"])
        vol, ig = self.named("volumes", body["vol-id"]), self.named("initiator-groups", body["ig-id"])
        if vol["name"] in self.map_with_next:
            self.create_map({"vol-id": vol["name"], "ig-id": self.map_with_next.pop(vol["name"])})
        maps = [m for m in self.objects["lun-maps"].values() if m["ig"] == ig["index"]]
        if any(m["vol"] == vol["index"] for m in maps):
            raise Failure("vol_already_mapped")
        lun, used = body.get("lun"), {m["lun"] for m in maps}
        if lun is None:
            lun = next(n for n in range(1, 16384) if n not in used)
        if not isinstance(lun, int) or not 0 <= lun < 16384:
            raise Failure("invalid_lun")  # assumed
        if lun in used:
            raise Failure("lun_is_in_use")  # assumed
        vol["naa"] = vol["shown"]
        name = f"{vol['index']}_{ig['index']}_1"
        answer = self.add("lun-maps", name, vol=vol["index"], ig=ig["index"], lun=lun)
        self.mapped(self.named("lun-maps", name))
        return answer

    def delete(self, kind, o):
        maps = self.objects["lun-maps"]
        if kind == "volumes" and any(m["vol"] == o["index"] for m in maps.values()):
            raise Failure("vol_is_mapped")  # assumed: newer ones may remove the maps as well
        if kind == "initiator-groups" and (any(m["ig"] == o["index"] for m in maps.values()) or
                                           any(i["ig"] == o["index"] for i in self.objects["initiators"].values())):
            raise Failure("ig_is_in_use")  # assumed
        if kind == "lun-maps" and not self.settings["cut"]:
            for host in self.real_hosts:
                if host.has_paths(self.objects["volumes"][o["vol"]]) and self.group_has(o["ig"], [host.iqn, *host.wwpns]):
                    self.violate(f"{o['name']} was unmapped while {host.name} had paths")
        del self.objects[kind][o["index"]]
        if kind == "lun-maps":
            self.unmapped(o)
        if kind == "volumes":
            self.removed(o)
        return Answer()

    def put(self, kind, o, body):
        if kind != "volumes":
            raise Failure("not_allowed", 405)
        self.check_keys(body, [], ["vol-size", "vol-name"])
        if "vol-size" in body:
            m = SIZE.fullmatch(body["vol-size"])
            kib = int(m[1]) * UNITS[m[2]] if m else 0
            if kib < o["kib"] or kib % 1024:
                raise Failure("invalid_vol_size")
            o["kib"] = kib
            with open(o["file"], "r+b") as f:
                f.truncate(kib * 1024)
            self.grown(o)
        o["name"] = body.get("vol-name", o["name"])
        return Answer()

    # ---- /control ----

    def state(self):
        return {"volumes": [dict(self.full("volumes", v), file=v["file"]) for v in self.objects["volumes"].values()],
                "initiators": [self.full("initiators", i) for i in self.objects["initiators"].values()],
                "groups": [g["name"] for g in self.objects["initiator-groups"].values()],
                "hosts": {h.name: h.shown() for h in self.real_hosts}, "violations": self.violations, "programs": self.programs}

    def change(self, what):
        """rename: {old: new} of volumes; tags: {volume: [names]}; reboot, logout, make_maps: [hosts]; groups: {name: [ports]};
        map_with_next: {volume: group}, that somebody maps it to as well, just before the next map of it; map: {volume: [group, lun]}, that somebody
        does now."""
        for old, new in what.get("rename", {}).items():
            self.named("volumes", old)["name"] = new
        for volume, names in what.get("tags", {}).items():
            self.named("volumes", volume)["tags"] = [["c" * 32, n, i + 1] for i, n in enumerate(names)]
        for host in self.real_hosts:
            if host.name in what.get("reboot", []):
                host.reboot()
            if host.name in what.get("logout", []):
                host.logout()
            if host.name in what.get("make_maps", []):
                for d in host.devices.values():
                    host.map(d)
        self.map_with_next.update(what.get("map_with_next", {}))
        for volume, (group, lun) in what.get("map", {}).items():
            self.create_map({"vol-id": volume, "ig-id": group, "lun": lun})
        for name, ports in what.get("groups", {}).items():
            if all(g["name"] != name for g in self.objects["initiator-groups"].values()):
                self.add("initiator-groups", name)
            for port in ports:
                self.add("initiators", port, port=port, ig=self.named("initiator-groups", name)["index"])
        if what.get("forget_violations"):
            self.violations = []


def basic(user, password):
    return base64.b64encode(f"{user}:{password}".encode()).decode()


if __name__ == "__main__":
    common.main(XtremIO)
