#!/usr/bin/python3
"""Stands between the driver and a real OpenStack, and spoils on demand what goes through.

    between.py --dir DIR --volume URL --compute URL --identity URL [--port N] [--address A]

It prints "port N" when it is ready and ends when its standard input does. One port serves:

  /volume/...  /compute/...  /identity/...
                              go on to Cinder, Nova and Keystone
  /v2.0/tokens                a Keystone v2 and Rackspace's identity service, which is not there any more: strict about the request, asks the
                              real Keystone; its catalogue names /v1/PROJECT
  /v1/PROJECT/...             Rackspace's Cinder v1, made of the real one: its names of fields, status 200 for a creation, no
                              metadata filter, sizes from 75 GiB
  /control                    ../arrays/common.py. An action is method, service, and the path without version and project, where ids are called
                              ID: "POST volume /volumes", "DELETE compute /servers/ID/os-volume_attachments/ID"
"""

import contextlib
import http.client
import json
import os
import re
import sys
import urllib.parse

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "arrays"))

import common  # noqa: E402
from common import Answer, Array  # noqa: E402

PASSED_ON = ("retry-after", "x-subject-token", "openstack-api-version")
KEPT_BACK = ("host", "content-length", "connection", "expect")
VERSION = re.compile(r"^/v[0-9.]+(/[0-9a-f]{32})?(?=/)")
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def call(url, method, path, body, headers):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request(method, parts.path + path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def split(path):
    """Service and path within it: /volume/volumes/ID is ("volume", "/volumes/ID"), /v1/PROJECT/volumes is ("v1", "/volumes")."""
    service, _, rest = path[1:].partition("/")
    return service, "/" + (rest.partition("/")[2] if service == "v1" else rest)


def raw(status, data, headers=()):
    answer = Answer(status=status, headers=headers)
    answer.text = data.decode()
    return answer


def bad_request(status, message):
    return Answer({"badRequest": {"code": status, "message": message}}, status)


def old(volume):
    """As version 1 shows it."""
    volume["display_name"] = volume.pop("name", None)
    for a in volume["attachments"]:
        a.pop("attachment_id", None)
    return volume


class Between(Array):
    OPTIONS = ("volume", "compute", "identity")

    def action(self, request):
        service, path = split(request.path.partition("?")[0])
        return f"{request.method} {service} {ID.sub('ID', VERSION.sub('', path))}"

    def answering(self):
        """Cinder, Nova and Keystone take many calls at a time."""
        return contextlib.nullcontext()

    def answer(self, request):
        service, path = split(request.path)
        try:
            if request.path == "/v2.0/tokens":
                return self.token_v2(request)
            if service == "v1":
                return self.v1(request, path)
            if service in self.options:
                return raw(*self.forward(request, service, path, request.body))
            return Answer({}, 404)
        except Refused as e:
            return bad_request(e.status, e.message)
        except (KeyError, ValueError, TypeError) as e:
            return bad_request(400, f"{type(e).__name__}: {e}")

    def forward(self, request, service, path, body):
        """Status, body, headers."""
        headers = {k: v for k, v in request.headers.items() if k.lower() not in KEPT_BACK}
        status, got, data = call(self.options[service], request.method, path, body or None, headers)
        return status, data, [(k, v) for k, v in got.items() if k.lower() in PASSED_ON]

    # ---- Rackspace ----

    def token_v2(self, request):
        asked = json.loads(request.body)["auth"]
        if "RAX-KSKEY:apiKeyCredentials" in asked:
            given = asked["RAX-KSKEY:apiKeyCredentials"]
            user, secret = given["username"], given["apiKey"]
        else:
            given = asked["passwordCredentials"]
            user, secret = given["username"], given["password"]
            if "tenantName" not in asked and "tenantId" not in asked:
                raise Refused(400, "no tenant")
        wanted = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": user, "domain": {"id": "default"}, "password": secret}}},
            "scope": {"project": {"name": "flocker", "domain": {"id": "default"}}}}}
        status, headers, data = call(self.options["identity"], "POST", "/auth/tokens", json.dumps(wanted),
                                     {"Content-Type": "application/json"})
        if status != 201:
            raise Refused(status, "Unable to authenticate user with credentials provided.")
        token = json.loads(data)["token"]
        base = f"http://{request.headers['Host']}"
        project = token["project"]["id"]
        return Answer({"access": {
            "token": {"id": next(v for k, v in headers.items() if k.lower() == "x-subject-token"), "expires": token["expires_at"],
                      "tenant": {"id": project}},
            "serviceCatalog": [
                {"name": "cloudServersOpenStack", "type": "compute", "endpoints": [
                    {"region": "DFW", "tenantId": project, "publicURL": f"{base}/compute"}]},
                {"name": "cloudBlockStorage", "type": "volume", "endpoints": [
                    {"region": "DFW", "tenantId": project, "publicURL": f"{base}/v1/{project}"},
                    {"region": "ORD", "tenantId": project, "publicURL": "https://ord.example.com/v1/1"}]}]}})

    def v1(self, request, path):
        body, (place, _, _) = request.body, path.partition("?")
        creates = request.method == "POST" and place == "/volumes"
        if creates:
            asked = json.loads(body)["volume"]
            if "name" in asked or "display_name" not in asked or not 75 <= asked["size"] <= 1024:
                raise Refused(400, "Invalid input received")
            asked["name"] = asked.pop("display_name")
            asked["volume_type"] = {"SATA": "files", "SSD": "files"}[asked.get("volume_type", "SATA")]
            body = json.dumps({"volume": asked})
        if place == "/volumes/detail":
            path = place
        status, data, headers = self.forward(request, "volume", path, body)
        answer = json.loads(data) if data else {}
        if "volume" in answer:
            old(answer["volume"])
        for volume in answer.get("volumes", []):
            old(volume)
        answer.pop("volumes_links", None)
        return Answer(answer or None, 200 if creates and status == 202 else status, headers=headers)


if __name__ == "__main__":
    common.main(Between)
