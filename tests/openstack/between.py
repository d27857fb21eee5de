#!/usr/bin/python3
"""Stands between the driver and a real OpenStack, and spoils on demand what goes through.

    between.py --dir DIR --volume URL --compute URL --identity URL

It prints "port N" when it is ready and ends when its standard input does. One port serves:

  /volume/...  /compute/...   go on to Cinder and Nova
  /v2.0/tokens                a Keystone v2 and Rackspace's identity service, which is not there any more: strict about the request, asks the
                              real Keystone; its catalogue names /v1/PROJECT
  /v1/PROJECT/...             Rackspace's Cinder v1, made of the real one: its names of fields, status 200 for a creation, no
                              metadata filter, sizes from 75 GiB
  POST /control               JSON: {"faults": [{"action": "POST volume /volumes", "how": "lost", "times": 1}], "forget_calls": 1}
                              action: method, service and a regular expression for the path
                              how: "error" (not passed on; status, message, retry_after), "drop" (not passed on, the connection ends),
                              "lost" (done, the answer does not arrive), "twice" (done two times), "late" (after `seconds`), "garbage"
  GET /control                JSON: number of calls by action, the headers of the last
"""

import argparse
import http.client
import http.server
import json
import re
import sys
import threading
import time
import urllib.parse


class State:
    def __init__(self, targets):
        self.targets, self.lock = targets, threading.Lock()
        self.faults, self.calls, self.last = [], {}, {}

    def fault(self, action):
        with self.lock:
            for f in self.faults:
                if f.get("times", 1) > 0 and re.fullmatch(f["action"], action):
                    f["times"] = f.get("times", 1) - 1
                    return f
        return None

    def count(self, action, headers):
        # Ids would make each call one of its own.
        name = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", action).split("?")[0]
        with self.lock:
            self.calls[name] = self.calls.get(name, 0) + 1
            self.last[name] = {k.lower(): v for k, v in headers.items()}


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


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = None

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.close_connection = True

    # ---- on to the real ones ----

    def forward(self, service, path, body):
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length", "connection", "expect")}
        status, got, data = call(self.state.targets[service], self.command, path, body or None, headers)
        return status, {k: v for k, v in got.items() if k.lower() in ("retry-after", "x-subject-token", "openstack-api-version")}, data

    def pass_on(self, service, path, do):
        body = self.body()
        action = f"{self.command} {service} {path}"
        self.state.count(action, self.headers)
        fault = self.state.fault(action)
        how = fault and fault["how"]
        if how == "drop":
            return self.hang_up()
        if how == "error":
            more = {"Retry_After": str(fault["retry_after"])} if "retry_after" in fault else {}
            name = fault.get("name", "badRequest")
            text = json.dumps({name: {"code": fault["status"], "message": fault.get("message", "spoiled")}})
            return self.send(fault["status"], text.encode(), **more)
        if how == "late":
            time.sleep(fault["seconds"])
        if how == "twice":
            do(service, path, body)
        status, headers, data = do(service, path, body)
        if how == "lost":
            return self.hang_up()
        if how == "garbage":
            return self.send(status, b"<html>" + data)
        return self.send(status, data, **{k.replace("-", "_"): v for k, v in headers.items()})

    # ---- Rackspace ----

    def token_v2(self):
        asked = json.loads(self.body())["auth"]
        if "RAX-KSKEY:apiKeyCredentials" in asked:
            given = asked["RAX-KSKEY:apiKeyCredentials"]
            user, secret = given["username"], given["apiKey"]
        else:
            given = asked["passwordCredentials"]
            user, secret = given["username"], given["password"]
            if "tenantName" not in asked and "tenantId" not in asked:
                raise Refused(400, "no tenant")
        request = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": user, "domain": {"id": "default"}, "password": secret}}},
            "scope": {"project": {"name": "flocker", "domain": {"id": "default"}}}}}
        status, headers, data = call(self.state.targets["identity"], "POST", "/auth/tokens", json.dumps(request),
                                     {"Content-Type": "application/json"})
        if status != 201:
            raise Refused(status, "Unable to authenticate user with credentials provided.")
        token = json.loads(data)["token"]
        base = f"http://127.0.0.1:{self.server.server_address[1]}"
        project = token["project"]["id"]
        answer = {"access": {
            "token": {"id": next(v for k, v in headers.items() if k.lower() == "x-subject-token"), "expires": token["expires_at"],
                      "tenant": {"id": project}},
            "serviceCatalog": [
                {"name": "cloudServersOpenStack", "type": "compute", "endpoints": [
                    {"region": "DFW", "tenantId": project, "publicURL": f"{base}/compute"}]},
                {"name": "cloudBlockStorage", "type": "volume", "endpoints": [
                    {"region": "DFW", "tenantId": project, "publicURL": f"{base}/v1/{project}"},
                    {"region": "ORD", "tenantId": project, "publicURL": "https://ord.example.com/v1/1"}]}]}}
        self.send(200, json.dumps(answer).encode())

    @staticmethod
    def old(volume):
        volume["display_name"] = volume.pop("name", None)
        for a in volume["attachments"]:
            a.pop("attachment_id", None)
        return volume

    def v1(self, service, path, body):
        parts = urllib.parse.urlsplit(path)
        if self.command == "POST" and parts.path == "/volumes":
            asked = json.loads(body)["volume"]
            if "name" in asked or "display_name" not in asked or not 75 <= asked["size"] <= 1024:
                raise Refused(400, "Invalid input received")
            asked["name"] = asked.pop("display_name")
            asked["volume_type"] = {"SATA": "files", "SSD": "files"}[asked.get("volume_type", "SATA")]
            body = json.dumps({"volume": asked})
        if parts.path == "/volumes/detail":
            path = parts.path
        status, headers, data = self.forward("volume", path, body)
        answer = json.loads(data) if data else {}
        if "volume" in answer:
            self.old(answer["volume"])
        for volume in answer.get("volumes", []):
            self.old(volume)
        answer.pop("volumes_links", None)
        if self.command == "POST" and parts.path == "/volumes" and status == 202:
            status = 200
        return status, headers, json.dumps(answer).encode() if answer else b""

    # ---- all ----

    def control(self):
        s = self.state
        if self.command == "POST":
            told = json.loads(self.body())
            with s.lock:
                s.faults = told.get("faults", s.faults)
                if told.get("forget_calls"):
                    s.calls, s.last = {}, {}
        with s.lock:
            self.send(200, json.dumps({"calls": s.calls, "last": s.last}).encode())

    def answer(self):
        try:
            first, _, rest = self.path[1:].partition("/")
            if first == "control":
                self.control()
            elif self.path == "/v2.0/tokens":
                self.token_v2()
            elif first in ("volume", "compute"):
                self.pass_on(first, "/" + rest, self.forward)
            elif first == "v1":
                self.pass_on("v1", "/" + rest.partition("/")[2], self.v1)
            else:
                self.send(404, b"{}")
        except Refused as e:
            self.send(e.status, json.dumps({"badRequest": {"code": e.status, "message": e.message}}).encode())
        except (KeyError, ValueError, TypeError) as e:
            self.send(400, json.dumps({"badRequest": {"code": 400, "message": f"{type(e).__name__}: {e}"}}).encode())

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dir")
    for name in ("volume", "compute", "identity"):
        p.add_argument(f"--{name}", required=True)
    a = p.parse_args()
    Handler.state = State({"volume": a.volume, "compute": a.compute, "identity": a.identity})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"port {server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
