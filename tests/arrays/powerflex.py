#!/usr/bin/python3
"""A PowerFlex gateway for tests: strict about everything that the real one refuses. How to run it: common.py.

--host NAME=HOSTROOT makes an SDC (the client of PowerFlex on a host) whose GUID is NAME. A volume that is mapped to it appears as
HOSTROOT/dev/scini[a-z..] with its link below HOSTROOT/dev/disk/by-id; that takes it away again when it is unmapped, as the real one does,
whether somebody uses it or not (so a test that takes it away under a mount shows what went wrong).

From where the facts are: paths, bodies, names of fields: dell/goscaleio (api.go, volume.go, sdc.go, types.go) and OpenStack Cinder's
driver for PowerFlex (rest_client.py). The numbers of errors 79, 81, 84 of 3.x and 4037, 4039 of 4.x: those two, and os-brick. Numbers that
no source has are made up here, and differ between 3.x and 4.x: nobody may rely on them. The life of tokens (10 minutes idle, 8 hours): the
user guide's, by way of other drivers.
"""

import base64
import os
import re
import secrets
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from common import Answer, Array, Disk, main  # noqa: E402

UNIT_KB = 8 << 20
SYSTEM = "5f3a0c1e2d4b6978"
DOMAIN, POOL = "b21fe4d500000000", "75a0c0a100000000"
USER, PASSWORD = "flocker", "not/so+secret="
LINK = "emc-vol-{}-{}"
# name -> (number in 3.x, number in 4.x, text)
ERRORS = {
    "not found": (79, 4079, "Could not find the volume"),
    "no such name": (3, 4003, "Not found"),
    "name in use": (6, 4006, "Volume name already in use. Please use a different name."),
    "mapped already": (81, 4037, "The volume is already mapped to this SDC"),
    "mapped elsewhere": (306, 4306, "Only a single SDC may be mapped to this volume at a time"),
    "not mapped": (84, 4039, "The volume is not mapped to SDC"),
    "is mapped": (96, 4096, "Volume is mapped"),
    "no such SDC": (80, 4080, "Could not find the SDC"),
    "size": (131, 4131, "The requested volume size is not a multiple of 8 GB"),
    "smaller": (133, 4133, "Volume capacity can only be increased"),
    "no room": (122, 4122, "Not enough capacity in the Storage Pool"),
    "no such domain": (142, 4142, "Could not find Protection Domain"),
    "no such pool": (258, 4258, "Could not find Storage Pool"),
    "name": (0, 0, "The name must be of 1 to 31 characters without blanks"),
    "syntax": (0, 0, "illegal syntax"),
}


class Refused(Exception):
    def __init__(self, what, status=500):
        super().__init__(what)
        self.what, self.status = what, status


class PowerFlex(Array):
    SETTINGS = {
        "version": "3.6", "idle_s": 600.0, "life_s": 28800.0, "map_s": 0.0,  # until the device of a mapped volume appears
        "lag_s": 0.0,  # lists show what was so long ago; who asks by id or name is told what is
        "zero_padding": True, "room_kb": 1 << 40,
    }

    def reset(self):
        self.close()
        super().reset()
        self.volumes, self.tokens, self.serial, self.logins, self.gone = {}, {}, 0, 0, []
        self.sdcs = {f"c{i:07x}00000000": {"guid": guid.upper(), "root": root, "state": "Connected"} for i, (guid, root) in enumerate(self.hosts.items(), 1)}

    def close(self):
        for v in getattr(self, "volumes", {}).values():
            v["disk"].remove()

    def state(self):
        self.advance()
        return {"logins": self.logins, "system": SYSTEM, "sdcs": self.sdcs, "volumes": [
            {**self.shown(v), "file": v["disk"].path, "sizeInKb": v["size_kb"], "guids": [self.sdcs[s]["guid"] for s in v["sdcs"]]}
            for v in self.volumes.values()]}

    def change(self, what):
        if what.get("forget_tokens"):
            self.tokens = {}
        for name, sdcs in what.get("map", {}).items():  # somebody else maps or unmaps it
            v = next(v for v in self.volumes.values() if v["name"] == name)
            self.set_mapped(v, [i for i, s in self.sdcs.items() if s["guid"].lower() in sdcs])
        for old, new in what.get("rename", {}).items():
            next(v for v in self.volumes.values() if v["name"] == old)["name"] = new
        for s in self.sdcs.values():
            s["state"] = what.get("states", {}).get(s["guid"].lower(), s["state"])
        if what.get("new_sdc_ids"):  # removed from the system, and back
            self.sdcs = {f"d{sdc[1:]}": s for sdc, s in self.sdcs.items()}
            for v in self.volumes.values():
                v["sdcs"], v["plugged"] = [f"d{x[1:]}" for x in v["sdcs"]], v["plugged"] and f"d{v['plugged'][1:]}"
        for name in what.get("all_sdcs", []):
            next(v for v in self.volumes.values() if v["name"] == name)["all"] = True

    def tick(self):
        self.advance()

    # ---- the paths ----

    PATHS = [
        ("GET", r"/api/login", "login"),
        ("GET", r"/api/version", "version"),
        ("GET", r"/api/types/System/instances", "systems"),
        ("GET", r"/api/types/Domain/instances/getByName::([^/]+)", "domain"),
        ("GET", r"/api/types/Pool/instances/getByName::([0-9a-f]+),([^/]+)", "pool_id"),
        ("GET", r"/api/instances/StoragePool::([0-9a-f]+)", "pool"),
        ("GET", r"/api/types/Sdc/instances", "sdc_list"),
        ("GET", r"/api/instances/Sdc::([0-9a-f]+)", "sdc"),
        ("GET", r"/api/types/Volume/instances", "list"),
        ("POST", r"/api/types/Volume/instances", "create"),
        ("POST", r"/api/types/Volume/instances/action/queryIdByKey", "find"),
        ("GET", r"/api/instances/Volume::([0-9a-f]+)", "read"),
        ("POST", r"/api/instances/Volume::([0-9a-f]+)/action/addMappedSdc", "map"),
        ("POST", r"/api/instances/Volume::([0-9a-f]+)/action/removeMappedSdc", "unmap"),
        ("POST", r"/api/instances/Volume::([0-9a-f]+)/action/setVolumeSize", "resize"),
        ("POST", r"/api/instances/Volume::([0-9a-f]+)/action/removeVolume", "remove"),
    ]

    def route(self, request):
        for method, pattern, name in self.PATHS:
            if request.method == method and (m := re.fullmatch(pattern, request.path)):
                return name, m.groups()
        return "unknown", ()

    def action(self, request):
        return self.route(request)[0]

    def answer(self, request):
        name, parts = self.route(request)
        if name == "unknown":
            return Answer({"message": "no such path", "httpStatusCode": 404, "errorCode": 0}, 404)
        if not self.allowed(request, name):
            return Answer({"message": "Unauthorized", "httpStatusCode": 401, "errorCode": 0}, 401)
        accept = request.headers.get("Accept", "application/json")
        if name not in ("login", "version") and accept not in ("application/json", f"application/json;version={self.settings['version']}"):
            return Answer("<html>406</html>", 406, "text/html")
        self.advance()
        try:
            body = self.body_of(request) if request.method == "POST" else None
            return getattr(self, "do_" + name)(*parts, *([body] if body is not None else []))
        except Refused as r:
            number = ERRORS[r.what][1 if self.settings["version"] >= "4" else 0]
            text = ERRORS[r.what][2]
            if r.status == 400:
                number = 0
            return Answer({"message": text, "httpStatusCode": r.status, "errorCode": number,
                           "details": [{"error": "?", "rc": number, "errorMessage": text}]}, r.status)

    @staticmethod
    def body_of(request):
        if not request.headers.get("Content-Type", "").startswith("application/json"):
            raise Refused("syntax", 415)
        body = request.json()
        if not isinstance(body, dict) or not all(isinstance(x, str) for x in body.values()):  # numbers are texts, too
            raise Refused("syntax", 400)
        return body

    # ---- who asks ----

    def allowed(self, request, name):
        kind, _, rest = request.headers.get("Authorization", "").partition(" ")
        if kind == "Bearer":
            return name != "login" and self.settings["version"] >= "4" and self.is_token(rest)
        if kind != "Basic":
            return False
        user, _, secret = base64.b64decode(rest).decode().partition(":")
        if name == "login":
            return (user, secret) == (USER, PASSWORD)
        return user in ("", USER) and self.is_token(secret)

    def is_token(self, text):
        t, now = self.tokens.get(text), time.monotonic()
        if not t or now > t["used"] + self.settings["idle_s"] or now > t["born"] + self.settings["life_s"]:
            self.tokens.pop(text, None)
            return False
        t["used"] = now
        return True

    def do_login(self):
        token, now = secrets.token_urlsafe(24), time.monotonic()
        self.tokens[token] = {"born": now, "used": now}
        self.logins += 1
        return Answer(token)

    def do_version(self):
        return Answer(self.settings["version"])

    # ---- what there is ----

    def do_systems(self):
        return Answer([{"id": SYSTEM, "name": "lab", "systemVersionName": "DellEMC PowerFlex Version: " + self.settings["version"]}])

    def do_domain(self, name):
        if name != "default":
            raise Refused("no such domain")
        return Answer(DOMAIN)

    def do_pool_id(self, domain, name):
        if domain != DOMAIN or name != "default":
            raise Refused("no such pool")
        return Answer(POOL)

    def do_pool(self, pool):
        if pool != POOL:
            raise Refused("no such pool")
        return Answer({"id": POOL, "name": "default", "protectionDomainId": DOMAIN, "zeroPaddingEnabled": self.settings["zero_padding"]})

    def sdc_shown(self, sdc):
        s = self.sdcs[sdc]
        return {"id": sdc, "sdcGuid": s["guid"], "sdcIp": "192.0.2." + str(int(sdc[1:8], 16)), "name": None, "mdmConnectionState": s["state"]}

    def do_sdc_list(self):
        return Answer([self.sdc_shown(s) for s in self.sdcs])

    def do_sdc(self, sdc):
        if sdc not in self.sdcs:
            raise Refused("no such SDC")
        return Answer(self.sdc_shown(sdc))

    def shown(self, v):
        mapped = [{"sdcId": s, "sdcIp": self.sdc_shown(s)["sdcIp"], "limitIops": 0, "limitBwInMbps": 0, "accessMode": "ReadWrite"}
                  for s in v["sdcs"]]
        return {"id": v["id"], "name": v["name"], "sizeInKb": v["size_kb"], "volumeType": v["type"], "storagePoolId": v["pool"],
                "ancestorVolumeId": None, "mappingToAllSdcsEnabled": v["all"], "mappedSdcInfo": mapped or None, "creationTime": v["created"]}

    def volume(self, vid):
        if vid not in self.volumes:
            raise Refused("not found")
        return self.volumes[vid]

    def do_list(self):
        then = time.monotonic() - self.settings["lag_s"]
        return Answer([self.shown(v) for v in self.volumes.values() if v["born"] <= then] +
                      [shown for born, ended, shown in self.gone if born <= then < ended])

    def do_read(self, vid):
        return Answer(self.shown(self.volume(vid)))

    def do_find(self, body):
        self.only(body, "name")
        for v in self.volumes.values():
            if v["name"] == body["name"]:
                return Answer(v["id"])
        raise Refused("no such name")

    # ---- changes ----

    @staticmethod
    def only(body, *names, more=()):
        if not set(names) <= set(body) <= {*names, *more}:
            raise Refused("syntax", 400)

    def do_create(self, body):
        self.only(body, "name", "protectionDomainId", "storagePoolId", "volumeType", "volumeSizeInKb")
        name, size = body["name"], body["volumeSizeInKb"]
        if not re.fullmatch(r"[!-~]{1,31}", name):
            raise Refused("name")
        if not re.fullmatch(r"[1-9]\d*", size) or body["volumeType"] not in ("ThinProvisioned", "ThickProvisioned"):
            raise Refused("syntax", 400)
        if int(size) % UNIT_KB:
            raise Refused("size")
        if body["protectionDomainId"] != DOMAIN:
            raise Refused("no such domain")
        if body["storagePoolId"] != POOL:
            raise Refused("no such pool")
        if any(v["name"] == name for v in self.volumes.values()):
            raise Refused("name in use")
        if sum(v["size_kb"] for v in self.volumes.values()) + int(size) > self.settings["room_kb"]:
            raise Refused("no room")
        self.serial += 1
        vid = f"a1b2c3d4{self.serial:08x}"
        self.volumes[vid] = {
            "id": vid, "name": name, "size_kb": int(size), "type": body["volumeType"], "pool": POOL, "sdcs": [], "all": False,
            "plugged": None, "since": 0.0, "born": time.monotonic(), "created": int(time.time()),
            "disk": Disk(f"{self.folder}/{vid}.img", int(size) << 10)}
        return Answer({"id": vid})

    def sdc_of(self, body):
        for sdc, s in self.sdcs.items():
            if body.get("sdcId") == sdc or body.get("guid", "").upper() == s["guid"]:
                return sdc
        raise Refused("no such SDC")

    def do_map(self, vid, body):
        self.only(body, more=("sdcId", "guid", "allowMultipleMappings", "accessMode"))
        v = self.volume(vid)
        if ("sdcId" in body) == ("guid" in body) or body.get("allowMultipleMappings", "FALSE").upper() not in ("TRUE", "FALSE"):
            raise Refused("syntax", 400)
        if body.get("accessMode", "ReadWrite") not in ("ReadWrite", "ReadOnly", "NoAccess"):
            raise Refused("syntax", 400)
        sdc = self.sdc_of(body)
        if sdc in v["sdcs"] or v["all"]:
            raise Refused("mapped already")
        if v["sdcs"] and body.get("allowMultipleMappings", "FALSE").upper() != "TRUE":
            raise Refused("mapped elsewhere")
        self.set_mapped(v, [*v["sdcs"], sdc])
        return Answer()

    def do_unmap(self, vid, body):
        self.only(body, more=("sdcId", "guid", "allSdcs", "ignoreScsiInitiators"))
        v = self.volume(vid)
        if sum(k in body for k in ("sdcId", "guid", "allSdcs")) != 1:
            raise Refused("syntax", 400)
        sdcs = v["sdcs"] if "allSdcs" in body else [self.sdc_of(body)]
        if not sdcs or any(s not in v["sdcs"] for s in sdcs):
            raise Refused("not mapped")
        self.set_mapped(v, [s for s in v["sdcs"] if s not in sdcs])
        return Answer()

    def do_resize(self, vid, body):
        self.only(body, "sizeInGB")
        v = self.volume(vid)
        if not re.fullmatch(r"[1-9]\d*", body["sizeInGB"]):
            raise Refused("syntax", 400)
        size = int(body["sizeInGB"]) << 20
        if size % UNIT_KB:
            raise Refused("size")
        if size < v["size_kb"]:
            raise Refused("smaller")
        v["size_kb"] = size
        v["disk"].grow(size << 10)
        return Answer()

    def do_remove(self, vid, body):
        self.only(body, "removeMode")
        v = self.volume(vid)
        if body["removeMode"] != "ONLY_ME":
            raise Refused("syntax", 400)
        if v["sdcs"] or v["all"]:
            raise Refused("is mapped")
        self.gone.append((v["born"], time.monotonic(), self.shown(v)))
        del self.gone[:-50]
        v["disk"].remove()
        del self.volumes[vid]
        return Answer()

    # ---- devices ----

    def set_mapped(self, v, sdcs):
        v["sdcs"], v["since"] = sdcs, time.monotonic()
        self.advance()

    def advance(self):
        for v in self.volumes.values():
            if v["plugged"] and v["plugged"] not in v["sdcs"]:
                v["disk"].unplug()
                v["plugged"] = None
            if v["sdcs"] and not v["plugged"] and time.monotonic() >= v["since"] + self.settings["map_s"]:
                self.plug(v, v["sdcs"][0])

    def plug(self, v, sdc):
        root = self.sdcs[sdc]["root"]
        if not root:
            return
        letters = "abcdefghijklmnopqrstuvwxyz"
        used = set(os.listdir(root + "/dev"))
        node = next(n for n in ["scini" + a for a in letters] + ["scini" + a + b for a in letters for b in letters] if n not in used)
        v["disk"].plug(root, node)
        v["disk"].link(f"{root}/dev/disk/by-id/{LINK.format(SYSTEM, v['id'])}", f"../../{node}")
        v["plugged"] = sdc


if __name__ == "__main__":
    main(PowerFlex)
