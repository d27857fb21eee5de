#!/usr/bin/python3
"""An EC2 for tests: strict about everything that the real one refuses, with faults on demand.

    fake_ec2.py --dir DIR --instance i-0aaa=HOSTROOT [--instance i-0bbb=HOSTROOT] [--address A] [--port N] [--stay]

It prints "port N" when it is ready and ends when its standard input does, or, with --stay, when it is killed. One port serves:

  POST /             the Query API (version 2016-11-15). Signatures (version 4) are checked as AWS describes them, with its own
                     code. Volumes go through creating, available, attaching, in-use, detaching, deleting, each for as long
                     as the settings say; lists lag behind; client tokens, pages, limits and names of devices count.
  /latest/...        the instance metadata service, version 2 only
  /container         access keys of a container
  POST /control      JSON: {"settings": {...}}, {"make": [parameters of CreateVolume, with "Tags": {...}]} and {"faults": [{"action": "CreateVolume", "how": "lost", "times": 1}]}
                     faults: ../arrays/faults.py; "error" has code, status, message
  GET /control       JSON: settings, volumes, number of calls by action, calls that are held

A volume is a file in DIR. An attached one is behind a loop device, whose node and sysfs texts appear below HOSTROOT as those of an
NVMe drive of EBS (or of Xen, by the setting `bus`). Detaching takes them away, and stops at "busy" while somebody has the device.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import socketserver
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "arrays"))

from faults import Faults  # noqa: E402

GIB = 1 << 30
NS = "http://ec2.amazonaws.com/doc/2016-11-15/"
ZONES = ["eu-west-1a", "eu-west-1b"]
REGION = "eu-west-1"
# (GiB from, GiB to, IOPS: None not allowed, else (from, to, needed), throughput allowed)
TYPES = {
    "standard": (1, 1024, None, False),
    "gp2": (1, 16384, None, False),
    "gp3": (1, 65536, (3000, 80000, False), True),
    "io1": (4, 16384, (100, 64000, True), False),
    "io2": (4, 65536, (100, 256000, True), False),
    "st1": (125, 16384, None, False),
    "sc1": (125, 16384, None, False),
}
DEVICE = re.compile(r"^/dev/(sd[b-z]|xvd[b-d][a-z]|xvda[a-z]|xvd[b-z])$")


class Failure(Exception):
    def __init__(self, code, message="", status=400):
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


class Cloud:
    def __init__(self, folder, instances):
        self.lock = threading.RLock()
        self.folder, self.hosts = folder, instances
        self.volumes, self.faults = {}, Faults()
        self.reset()

    def reset(self):
        """As at the start."""
        self.close()
        instances = self.hosts
        self.instances = {i: {"root": root, "state": "running", "zone": ZONES[0]} for i, root in instances.items()}
        self.settings = {
            "create_s": 0.0, "attach_s": 0.0, "detach_s": 0.0, "delete_s": 0.0,  # how long the states last
            # a change of a size; from the new size of the volume to the device's; how soon it may be changed again
            "modify_s": 0.0, "optimize_s": 0.0, "device_grows_s": 0.0, "modify_again_s": 0.0, "modify_fails": False,
            "invisible_s": 0.0,  # a new volume is unknown, by id too
            "lag_s": 0.0,  # lists show what was so long ago
            "page_max": 500, "attach_max": 27, "volumes_max": 10000, "rate": 0, "bus": "nvme",
            "keys": {"AKIATEST": {"secret": "wJalr/K7MDENG+test=", "token": None}},
            "role_keys_s": 3600.0, "imds": True, "role": "flocker-role",
        }
        self.volumes, self.tokens = {}, {}
        self.faults.set([])
        self.calls, self.order, self.recent, self.last_form = {}, [], [], {}
        self.imds_tokens, self.role_serial, self.serial = set(), 0, 0

    # ---- time ----

    def advance(self):
        now = time.monotonic()
        for v in list(self.volumes.values()):
            s = self.settings
            if v["status"] == "creating" and now >= v["since"] + s["create_s"]:
                self.set(v, status="available")
            a = v["attachment"]
            if a and a["status"] == "attaching" and now >= v["since"] + s["attach_s"]:
                self.plug(v)
                self.set(v, attachment=dict(a, status="attached"))
            elif a and a["status"] in ("detaching", "busy") and now >= v["since"] + s["detach_s"]:
                if self.unplug(v):
                    self.set(v, status="available", attachment=None)
                elif a["status"] != "busy":
                    self.set(v, attachment=dict(a, status="busy"))
            self.advance_modification(v, now)
            if v["status"] == "deleting" and now >= v["since"] + s["delete_s"]:
                self.set(v, status="deleted")
                os.unlink(v["file"])

    def set(self, v, **changes):
        """What it was stays known for those whose lists lag."""
        now = time.monotonic()
        v["history"].append((now, {k: v[k] for k in ("status", "attachment")}))
        del v["history"][:-8]
        v.update(changes, since=now)

    def seen(self, v):
        """As a list shows it that lags; None: not at all."""
        then = time.monotonic() - self.settings["lag_s"]
        if v["born"] > then:
            return None
        shown = dict(v)
        for when, old in reversed(v["history"]):
            if when <= then:
                break
            shown.update(old)
        return None if shown["status"] == "deleted" else shown

    # ---- devices ----

    def plug(self, v):
        root = self.instances[v["attachment"]["instance"]]["root"]
        if not root:
            return
        if self.settings["bus"] == "nvme":
            used = set(os.listdir(root + "/sys/block"))
            name = next(n for n in (f"nvme{i}n1" for i in range(1, 200)) if n not in used)
        else:
            name = "xvd" + re.sub(r"^/dev/(sd|xvd)", "", v["attachment"]["device"])
        loop = subprocess.run(["losetup", "-f", "--show", v["file"]], check=True, capture_output=True, text=True).stdout.strip()
        v["loop"], v["node"] = loop, name
        folder = f"{root}/sys/block/{name}"
        os.makedirs(folder + "/device")
        self.write(folder + "/size", v["size"] * GIB // 512)
        if self.settings["bus"] == "nvme":
            self.write(folder + "/device/model", "Amazon Elastic Block Store              ")
            self.write(folder + "/device/serial", v["id"].replace("-", ""))
        os.mknod(f"{root}/dev/{name}", stat.S_IFBLK | 0o600, os.stat(loop).st_rdev)

    def unplug(self, v):
        root = self.instances[v["attachment"]["instance"]]["root"]
        if not root or not v.get("loop"):
            return True
        try:
            os.close(os.open(v["loop"], os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
        except OSError:
            return False
        subprocess.run(["losetup", "-d", v["loop"]], check=False, stderr=subprocess.DEVNULL)
        os.unlink(f"{root}/dev/{v['node']}")
        shutil.rmtree(f"{root}/sys/block/{v['node']}")
        v["loop"] = v["node"] = None
        return True

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="ascii") as f:
            f.write(f"{text}\n")

    def close(self):
        for v in self.volumes.values():
            if v["attachment"]:
                self.unplug(v)
            if os.path.exists(v["file"]):
                os.unlink(v["file"])

    # ---- actions ----

    def volume(self, form):
        vid = need(form, "VolumeId")
        if not re.fullmatch(r"vol-[0-9a-f]{8}([0-9a-f]{9})?", vid):
            raise Failure("InvalidParameterValue", f"Value ({vid}) for parameter volumeId is invalid.")
        v = self.volumes.get(vid)
        if not v or v["status"] == "deleted" or time.monotonic() < v["born"] + self.settings["invisible_s"]:
            raise Failure("InvalidVolume.NotFound", f"The volume '{vid}' does not exist.")
        return v

    def create_volume(self, form):
        token = form.get("ClientToken", "")
        params = {k: v for k, v in form.items() if k != "ClientToken"}
        if len(token) > 64 or not token.isascii():
            raise Failure("InvalidParameterValue", "ClientToken")
        if token in self.tokens:
            old, vid = self.tokens[token]
            if old != params:
                raise Failure("IdempotentParameterMismatch", "The same token was used with other parameters.")
            return self.created(self.volumes[vid])
        zone = need(form, "AvailabilityZone")
        if zone not in ZONES:
            raise Failure("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
        size, kind = number(need(form, "Size")), form.get("VolumeType", "gp2")
        self.check_type(form, kind, size)
        if sum(v["status"] != "deleted" for v in self.volumes.values()) >= self.settings["volumes_max"]:
            raise Failure("VolumeLimitExceeded", "You have exceeded your maximum storage limit.")
        if form.get("Encrypted") not in (None, "true", "false") or ("KmsKeyId" in form and form.get("Encrypted") != "true"):
            raise Failure("InvalidParameterDependency", "KmsKeyId needs Encrypted.")
        self.serial += 1
        vid = "vol-" + hashlib.sha256(f"{self.folder}{self.serial}".encode()).hexdigest()[:17]
        now = time.monotonic()
        v = {"id": vid, "size": size, "type": kind, "zone": zone, "status": "creating", "attachment": None, "since": now, "born": now,
             "history": [], "modification": None, "tags": tags(form), "file": f"{self.folder}/{vid}.img", "iops": form.get("Iops"),
             "throughput": form.get("Throughput"), "encrypted": form.get("Encrypted", "false"),
             "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"}
        with open(v["file"], "wb") as f:
            f.truncate(size * GIB)
        self.volumes[vid] = v
        if token:
            self.tokens[token] = (params, vid)
        return self.created(v)

    @staticmethod
    def check_type(form, kind, size):
        if kind not in TYPES:
            raise Failure("UnknownVolumeType", f"Unsupported volume type '{kind}' for volume creation.")
        low, high, iops, throughput = TYPES[kind]
        if not low <= size <= high:
            raise Failure("InvalidParameterValue", f"Volume of {size}GiB is outside {low}..{high}GiB for type {kind}.")
        if "Iops" in form:
            if not iops:
                raise Failure("InvalidParameterCombination", f"The parameter iops is not supported for {kind} volumes.")
            if not iops[0] <= number(form["Iops"]) <= iops[1]:
                raise Failure("InvalidParameterValue", f"Volume iops of {form['Iops']} is outside the limits.")
        elif iops and iops[2]:
            raise Failure("MissingParameter", f"The parameter iops must be specified for {kind} volumes.")
        if "Throughput" in form and not throughput:
            raise Failure("InvalidParameterCombination", f"The parameter throughput is not supported for {kind} volumes.")

    def created(self, v):
        return "CreateVolumeResponse", self.volume_xml(v, tagged=True)

    def delete_volume(self, form):
        v = self.volume(form)
        if v["attachment"]:
            raise Failure("VolumeInUse", f"Volume {v['id']} is currently attached to {v['attachment']['instance']}")
        if v["status"] != "available":
            raise Failure("IncorrectState", f"Volume {v['id']} is in state {v['status']}")
        self.set(v, status="deleting")
        return "DeleteVolumeResponse", "<return>true</return>"

    def attach_volume(self, form):
        instance = self.instances.get(need(form, "InstanceId"))
        device = need(form, "Device")
        if not instance:
            raise Failure("InvalidInstanceID.NotFound", f"The instance ID '{form['InstanceId']}' does not exist")
        v = self.volume(form)
        if v["attachment"]:
            raise Failure("VolumeInUse", f"{v['id']} is already attached to an instance")
        if v["status"] != "available" or instance["state"] != "running":
            raise Failure("IncorrectState", f"{v['id']} is not 'available' or the instance is not 'running'.")
        if v["zone"] != instance["zone"]:
            raise Failure("InvalidVolume.ZoneMismatch", "The volume is not in the same zone as the instance")
        if not DEVICE.match(device):
            raise Failure("InvalidParameterValue", f"Value ({device}) for parameter device is invalid.")
        here = [w for w in self.volumes.values() if w["attachment"] and w["attachment"]["instance"] == form["InstanceId"]]
        if any(w["attachment"]["device"] == device for w in here) or device in instance.get("taken", []):
            raise Failure("InvalidParameterValue", f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use")
        if len(here) >= self.settings["attach_max"]:
            raise Failure("AttachmentLimitExceeded", "Maximum number of attachments reached.")
        self.set(v, status="in-use", attachment={"instance": form["InstanceId"], "device": device, "status": "attaching"})
        return "AttachVolumeResponse", self.attachment_xml(v)

    def detach_volume(self, form):
        v = self.volume(form)
        a = v["attachment"]
        if form.get("Force") == "true":
            raise Failure("UnsupportedOperation", "Nobody in these tests may force.")
        if not a:
            raise Failure("IncorrectState", f"Volume '{v['id']}' is in the 'available' state.")
        if form.get("InstanceId", a["instance"]) != a["instance"] or form.get("Device", a["device"]) != a["device"]:
            raise Failure("InvalidAttachment.NotFound", f"The volume '{v['id']}' is not attached to instance '{form['InstanceId']}'.")
        if a["status"] not in ("attached", "busy"):
            raise Failure("IncorrectState", f"Volume '{v['id']}' is {a['status']}.")
        self.set(v, attachment=dict(a, status="detaching"))
        return "DetachVolumeResponse", self.attachment_xml(v)

    def modify_volume(self, form):
        v, size, m = self.volume(form), number(need(form, "Size")), None
        if size < v["size"]:
            raise Failure("InvalidParameterValue", "New size cannot be smaller than existing size")
        m = v["modification"]
        if m and m["state"] in ("modifying", "optimizing"):
            raise Failure("IncorrectModificationState", f"Volume {v['id']} is already being modified: it is {m['state']}.")
        now = time.monotonic()
        if m and m["state"] == "completed" and now < m["since"] + self.settings["modify_again_s"]:
            raise Failure("VolumeModificationRateExceeded", "You've reached the maximum modification rate per volume limit. "
                          "Wait at least 6 hours between modifications per EBS volume.")
        self.check_type(dict(form, **({"Iops": v["iops"]} if v["iops"] else {})), v["type"], size)
        v["modification"] = {"state": "modifying", "target": size, "original": v["size"], "since": now, "message": ""}
        return "ModifyVolumeResponse", f"<volumeModification>{self.modification_xml(v)}</volumeModification>"

    def advance_modification(self, v, now):
        m = v["modification"]
        if not m:
            return
        if m["state"] == "modifying" and now >= m["since"] + self.settings["modify_s"]:
            if self.settings["modify_fails"]:
                m.update(state="failed", message="there is no capacity", since=now)
                return
            m.update(state="optimizing", since=now)
            v["size"] = m["target"]
            os.truncate(v["file"], v["size"] * GIB)
            v["resize_at"] = now + self.settings["device_grows_s"]
        if m["state"] == "optimizing" and now >= m["since"] + self.settings["optimize_s"]:
            m.update(state="completed", since=now)
        if v.get("resize_at") is not None and now >= v["resize_at"]:
            v["resize_at"] = None
            if v.get("loop"):
                subprocess.run(["losetup", "-c", v["loop"]], check=True)
                root = self.instances[v["attachment"]["instance"]]["root"]
                self.write(f"{root}/sys/block/{v['node']}/size", v["size"] * GIB // 512)

    @staticmethod
    def modification_xml(v):
        m = v["modification"]
        return (f"<volumeId>{v['id']}</volumeId><modificationState>{m['state']}</modificationState><statusMessage>{m['message']}</statusMessage>"
                f"<targetSize>{m['target']}</targetSize><originalSize>{m['original']}</originalSize><progress>0</progress>")

    def describe_volumes_modifications(self, form):
        found = [self.volume({"VolumeId": form[k]}) for k in form if k.startswith("VolumeId.")]
        if not any(v["modification"] for v in found):
            raise Failure("InvalidVolumeModification.NotFound", "There is no modification of it.")
        return "DescribeVolumesModificationsResponse", "<volumeModificationSet>" + "".join(
            f"<item>{self.modification_xml(v)}</item>" for v in found if v["modification"]) + "</volumeModificationSet>"

    def describe_volumes(self, form):
        filters, ids = self.filters(form), [form[k] for k in sorted(form) if k.startswith("VolumeId.")]
        if ids and "MaxResults" in form:
            raise Failure("InvalidParameterCombination", "The parameter volumeIds cannot be used with maxResults")
        if ids:
            for vid in ids:
                self.volume({"VolumeId": vid})
            found = [v for v in self.volumes.values() if v["id"] in ids]
        else:
            found = [s for s in map(self.seen, self.volumes.values()) if s and time.monotonic() >= s["born"] + self.settings["invisible_s"]]
        found = [v for v in found if all(self.matches(v, n, values) for n, values in filters)]
        part, more = self.page(form, found)
        return "DescribeVolumesResponse", "<volumeSet>" + "".join(
            f"<item>{self.volume_xml(v, tagged=True)}</item>" for v in part) + "</volumeSet>" + more

    def page(self, form, found):
        size = number(form.get("MaxResults", "1000"))
        if not 5 <= size <= 1000:
            raise Failure("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid.")
        size = min(size, self.settings["page_max"])
        start = 0
        if "NextToken" in form:
            try:
                start = int(base64.b64decode(form["NextToken"], validate=True).decode().removeprefix("page+/="))
            except ValueError:
                raise Failure("InvalidParameterValue", "The token is invalid.") from None
        token = base64.b64encode(f"page+/={start + size}".encode()).decode()
        return found[start:start + size], f"<nextToken>{token}</nextToken>" if start + size < len(found) else ""

    @staticmethod
    def filters(form):
        names = {k.split(".")[1]: v for k, v in form.items() if re.fullmatch(r"Filter\.\d+\.Name", k)}
        out = []
        for i, name in names.items():
            values = [v for k, v in form.items() if re.fullmatch(rf"Filter\.{i}\.Value\.\d+", k)]
            if not values:
                raise Failure("InvalidParameterValue", "The filter has no value")
            out.append((name, values))
        return out

    @staticmethod
    def matches(v, name, values):
        if name.startswith("tag:"):
            return v["tags"].get(name[4:]) in values
        if name == "status":
            return v["status"] in values
        if name == "attachment.instance-id":
            return bool(v["attachment"]) and v["attachment"]["instance"] in values
        raise Failure("InvalidParameterValue", f"The filter '{name}' is invalid")

    def describe_instances(self, form):
        wanted = self.filters(form)
        if any(n != "instance-id" for n, _ in wanted):
            raise Failure("InvalidParameterValue", "The filter is invalid")
        found = [(i, x) for i, x in self.instances.items() if all(i in values for _, values in wanted)]
        part, more = self.page(form, found)
        return "DescribeInstancesResponse", "<reservationSet>" + "".join(
            f"<item><instancesSet><item><instanceId>{i}</instanceId><instanceState><name>{x['state']}</name></instanceState></item>"
            "</instancesSet></item>" for i, x in part) + "</reservationSet>" + more

    def describe_availability_zones(self, _form):
        return "DescribeAvailabilityZonesResponse", "<availabilityZoneInfo>" + "".join(
            f"<item><zoneName>{z}</zoneName><zoneState>available</zoneState></item>" for z in ZONES) + "</availabilityZoneInfo>"

    @staticmethod
    def attachment_xml(v):
        a = v["attachment"]
        return (f"<volumeId>{v['id']}</volumeId><instanceId>{a['instance']}</instanceId><device>{a['device']}</device>"
                f"<status>{a['status']}</status><deleteOnTermination>false</deleteOnTermination>")

    def volume_xml(self, v, tagged):
        attached = f"<item>{self.attachment_xml(v)}</item>" if v["attachment"] else ""
        tag_set = "".join(f"<item><key>{escape(k)}</key><value>{escape(x)}</value></item>" for k, x in v["tags"].items()) if tagged else ""
        iops = f"<iops>{v['iops']}</iops>" if v["iops"] else ""
        return (f"<volumeId>{v['id']}</volumeId><size>{v['size']}</size><snapshotId/><availabilityZone>{v['zone']}</availabilityZone>"
                f"<status>{v['status']}</status><createTime>{v['created']}</createTime><attachmentSet>{attached}</attachmentSet>"
                f"<tagSet>{tag_set}</tagSet><volumeType>{v['type']}</volumeType>{iops}<encrypted>{v['encrypted']}</encrypted>")

    ACTIONS = {
        "CreateVolume": (create_volume, r"AvailabilityZone|Size|VolumeType|Iops|Throughput|Encrypted|KmsKeyId|ClientToken|TagSpecification\..*"),
        "DeleteVolume": (delete_volume, r"VolumeId"),
        "AttachVolume": (attach_volume, r"VolumeId|InstanceId|Device"),
        "DetachVolume": (detach_volume, r"VolumeId|InstanceId|Device|Force"),
        "DescribeVolumes": (describe_volumes, r"VolumeId\.\d+|Filter\..*|MaxResults|NextToken"),
        "DescribeInstances": (describe_instances, r"Filter\..*|MaxResults|NextToken"),
        "ModifyVolume": (modify_volume, r"VolumeId|Size"),
        "DescribeVolumesModifications": (describe_volumes_modifications, r"VolumeId\.\d+"),
        "DescribeAvailabilityZones": (describe_availability_zones, r""),
    }

    def act(self, form):
        action = form.get("Action")
        if action not in self.ACTIONS or form.get("Version") != "2016-11-15":
            raise Failure("InvalidAction", f"The action {action} is not valid for this web service.")
        run, allowed = self.ACTIONS[action]
        for name in form:
            if name not in ("Action", "Version") and not re.fullmatch(allowed, name):
                raise Failure("UnknownParameter", f"The parameter {name} is not recognized")
        self.advance()
        answer = run(self, {k: v for k, v in form.items() if k not in ("Action", "Version")})
        self.advance()
        return answer

    def throttled(self):
        now = time.monotonic()
        self.recent = [t for t in self.recent if t > now - 1]
        self.recent.append(now)
        return self.settings["rate"] and len(self.recent) > self.settings["rate"]

    # ---- keys ----

    def check_signature(self, method, path, headers, body):
        m = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, *SignedHeaders=([a-z0-9;-]+), *"
                         r"Signature=([0-9a-f]{64})", headers.get("Authorization", ""))
        if not m:
            raise Failure("MissingAuthenticationToken", "Request is missing an authentication token.", 403)
        key_id, date, region, service, signed, signature = m.groups()
        key, stamp, names = self.settings["keys"].get(key_id), headers.get("X-Amz-Date", ""), signed.split(";")
        if not key or headers.get("X-Amz-Security-Token") != key["token"]:
            raise Failure("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
        if key.get("until") and time.time() >= key["until"]:
            raise Failure("RequestExpired", "Request has expired.")
        if region != REGION or service != "ec2" or not stamp.startswith(date):
            raise Failure("AuthFailure", "Credential is not scoped correctly", 401)
        if "host" not in names or names != sorted(names):
            raise Failure("AuthFailure", "Signed headers are wrong", 401)
        for h in headers:
            if (h.lower().startswith("x-amz-") or h.lower() == "content-type") and h.lower() not in names:
                raise Failure("AuthFailure", f"{h} must be signed", 401)
        when = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        if abs((datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()) > 300:
            raise Failure("RequestExpired", "Request has expired.")
        if not hmac.compare_digest(signature, sign(key["secret"], method, path, headers, names, body, stamp, region, service)):
            raise Failure("SignatureDoesNotMatch", "The request signature we calculated does not match.", 403)

    def role_keys(self):
        """New ones at each call; those that were given out before stay good until their end."""
        self.role_serial += 1
        key_id, secret, token = f"ASIA{self.role_serial}", f"secret-{self.role_serial}/+=", f"token-{self.role_serial}=="
        until = time.time() + self.settings["role_keys_s"]
        self.settings["keys"][key_id] = {"secret": secret, "token": token, "until": until}
        return json.dumps({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key_id, "SecretAccessKey": secret, "Token": token,
                           "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))})


def sign(secret, method, path, headers, names, body, stamp, region, service):
    """Signature Version 4, from its description."""
    values = {k.lower(): " ".join(v.split()) for k, v in headers.items()}
    if any(n not in values for n in names):
        return ""
    path, _, query = path.partition("?")
    canonical = "\n".join([method, path, "&".join(sorted(query.split("&"))) if query else "",
                           "".join(f"{n}:{values[n]}\n" for n in names), ";".join(names), hashlib.sha256(body).hexdigest()])
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def need(form, name):
    if not form.get(name):
        raise Failure("MissingParameter", f"The request must contain the parameter {name}")
    return form[name]


def number(text):
    if not re.fullmatch(r"\d{1,9}", text):
        raise Failure("InvalidParameterValue", f"Value ({text}) is invalid.")
    return int(text)


def tags(form):
    out = {}
    if any(k.startswith("TagSpecification.") for k in form) and form.get("TagSpecification.1.ResourceType") != "volume":
        raise Failure("InvalidParameterValue", "TagSpecification")
    for k, v in form.items():
        if m := re.fullmatch(r"TagSpecification\.1\.Tag\.(\d+)\.Key", k):
            if v.startswith("aws:") or len(v) > 128 or v in out:
                raise Failure("InvalidParameterValue", "Tag keys")
            out[v] = form.get(f"TagSpecification.1.Tag.{m[1]}.Value", "")
    return out


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one piece: otherwise the second waits 40 ms for the acknowledgement of the first
    cloud = None

    def log_message(self, *args):
        pass

    def reply(self, status, text, kind="text/xml;charset=UTF-8", headers=()):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for h in headers:
            self.send_header(*h)
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def fail(self, f):
        self.reply(f.status, '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error>'
                   "</Errors><RequestID>5b3a7f2e-fake</RequestID></Response>" % (escape(f.code), escape(f.message)))

    def do_POST(self):
        body = self.body()
        if self.path == "/control":
            return self.control(json.loads(body))
        try:
            return self.query(body)
        except Failure as f:
            return self.fail(f)

    def query(self, body):
        cloud = self.cloud
        if self.path != "/" or not self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            raise Failure("InvalidAction", "not a query")
        form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
        action = form.get("Action", "")
        with cloud.lock:
            cloud.check_signature("POST", self.path, self.headers, body)
            cloud.calls[action] = cloud.calls.get(action, 0) + 1
            cloud.order = [*cloud.order[-999:], action]
            cloud.last_form[action] = form
            fault = cloud.faults.take(action, body.decode())
            if fault["how"] == "error":
                raise Failure(fault["code"], fault.get("message", ""), fault.get("status", 400))
            if cloud.throttled():
                raise Failure("RequestLimitExceeded", "Request limit exceeded.", 503)
        if not cloud.faults.before(fault, self.client_address[0]):
            return self.cut()
        with cloud.lock:
            name, text = cloud.act(form)
            if fault["how"] == "twice":
                try:
                    name, text = cloud.act(form)
                except Failure as f:
                    return self.fail(f)
        if not cloud.faults.after(fault, self.client_address[0]):
            return self.cut()
        return self.reply(200, f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{NS}"><requestId>fake</requestId>{text}</{name}>')

    def cut(self):
        self.close_connection = True
        self.connection.close()

    def control(self, what):
        with self.cloud.lock:
            if what.get("reset"):
                self.cloud.reset()
            self.cloud.settings.update(what.get("settings", {}))
            if "faults" in what:
                self.cloud.faults.set(what["faults"])
            if "let_go" in what:
                self.cloud.faults.let_go(what["let_go"], what.get("of"))
            for i, changes in what.get("instances", {}).items():
                self.cloud.instances.setdefault(i, {"root": None, "state": "running", "zone": ZONES[0]}).update(changes)
            if what.get("forget_calls"):
                self.cloud.calls, self.cloud.order = {}, []
            for vid, tag in what.get("tags", {}).items():
                self.cloud.volumes[vid]["tags"] = tag
            for form in what.get("make", []):
                _, xml = self.cloud.create_volume({k: v for k, v in form.items() if k != "Tags"})
                self.cloud.volumes[re.search(r"vol-[0-9a-f]+", xml)[0]]["tags"] = form.get("Tags", {})
            if what.get("forget_imds_tokens"):
                self.cloud.imds_tokens.clear()
        self.reply(200, "{}", "application/json")

    def do_PUT(self):
        self.body()
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        with self.cloud.lock:
            if not self.cloud.settings["imds"]:
                return self.reply(403, "", "text/plain")
            if self.path != "/latest/api/token" or not ttl.isdigit() or not 1 <= int(ttl) <= 21600 or "X-Forwarded-For" in self.headers:
                return self.reply(400, "", "text/plain")
            token = base64.b64encode(os.urandom(24)).decode()
            self.cloud.imds_tokens.add(token)
        return self.reply(200, token, "text/plain")

    def do_GET(self):
        with self.cloud.lock:
            if self.path == "/control":
                self.cloud.advance()
                hidden = ("history", "born", "since")
                return self.reply(200, json.dumps({
                    "calls": self.cloud.calls, "order": self.cloud.order, "held": self.cloud.faults.held(), "last": self.cloud.last_form, "instances": self.cloud.instances,
                    "volumes": [{k: x for k, x in v.items() if k not in hidden} for v in self.cloud.volumes.values()]}), "application/json")
            if self.path == "/container":
                if self.headers.get("Authorization") != "container-token":
                    return self.reply(403, "", "text/plain")
                return self.reply(200, self.cloud.role_keys(), "application/json")
            if self.headers.get("X-aws-ec2-metadata-token") not in self.cloud.imds_tokens:
                return self.reply(401, "", "text/plain")
            texts = {"meta-data/instance-id": lambda: next(iter(self.cloud.instances)), "meta-data/placement/availability-zone": lambda: ZONES[0]}
            if self.cloud.settings["role"]:
                texts["meta-data/iam/security-credentials/"] = lambda: self.cloud.settings["role"]
                texts["meta-data/iam/security-credentials/" + self.cloud.settings["role"]] = self.cloud.role_keys
            text = texts.get(self.path.removeprefix("/latest/"))
            return self.reply(200, text(), "text/plain") if text else self.reply(404, "", "text/plain")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self):
        """Without asking DNS for its own name: in the lab that is out of reach."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        """Clients that do not wait for their answer are part of the tests."""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--dir", required=True)
    p.add_argument("--instance", action="append", default=[])
    p.add_argument("--address", default="127.0.0.1")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--stay", action="store_true")
    a = p.parse_args()
    instances = dict(i.split("=", 1) for i in a.instance)
    os.makedirs(a.dir, exist_ok=True)
    for root in filter(None, instances.values()):
        os.makedirs(root + "/sys/block", exist_ok=True)
        os.makedirs(root + "/dev", exist_ok=True)
    Handler.cloud = Cloud(a.dir, instances)
    server = Server((a.address, a.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("port", server.server_address[1], flush=True)
    if a.stay:
        threading.Event().wait()
    sys.stdin.read()
    server.shutdown()
    Handler.cloud.close()


if __name__ == "__main__":
    main()
