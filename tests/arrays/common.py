"""What the storage arrays of the tests have in common: files behind loop devices that appear on "hosts", a server (plain, or TLS with a
certificate authority of its own), faults on demand. An array is a class made of Array; main(Array) runs it:

    ARRAY.py --dir DIR --host NAME=HOSTROOT [--host NAME=HOSTROOT] [--port N] [--address A] [--tls] [--set JSON] [its OPTIONS]

It prints "port N" when it is ready and ends when its standard input does. With --tls, DIR/ca.pem is the authority; the certificate is
for localhost, 127.0.0.1 and A. Beside the array's own paths, the port serves, without any login:

  POST /control      JSON: {"settings": {...}, "faults": [{"action": "map", "how": "lost", "times": 1}], "reset": true, "forget_calls": true}
                     faults: faults.py; "error" has status, body and headers
  GET /control       JSON: settings, volumes, faults (`times` that are left), number of calls by action, the last body of each, the order of the last thousand
"""

import argparse
import http.server
import ipaddress
import json
import os
import ssl
import stat
import subprocess
import sys
import threading
import time

from faults import Faults


class Disk:
    """A file; while it is plugged in, a loop device whose node is HOSTROOT/dev/NODE. `settle`, if any, is told the path of the node, and
    what it returns (paths of links, sysfs and so on) is removed when the disk is unplugged."""

    def __init__(self, path, size):
        self.path, self.size, self.loop, self.paths = path, size, None, []
        with open(path, "wb") as f:
            f.truncate(size)

    def plug(self, root, node):
        self.loop = subprocess.run(["losetup", "-f", "--show", self.path], check=True, capture_output=True, text=True).stdout.strip()
        path = f"{root}/dev/{node}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mknod(path, stat.S_IFBLK | 0o600, os.stat(self.loop).st_rdev)
        self.paths = [path]

    def link(self, path, target):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)
        self.paths.append(path)

    def in_use(self):
        if not self.loop:
            return False
        try:
            os.close(os.open(self.loop, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
        except OSError:
            return True
        return False

    def unplug(self):
        """Also while it is in use: then it is as if the cable had been pulled, and the loop device ends with its last user."""
        for path in reversed(self.paths):
            if os.path.lexists(path):
                os.unlink(path)
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], check=False, stderr=subprocess.DEVNULL)
        self.loop, self.paths = None, []

    def grow(self, size):
        self.size = size
        with open(self.path, "r+b") as f:
            f.truncate(size)
        if self.loop:
            subprocess.run(["losetup", "-c", self.loop], check=True)

    def remove(self):
        self.unplug()
        if os.path.exists(self.path):
            os.unlink(self.path)


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def json(self):
        """None: there is no body, or it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Answer:
    """`body`: text, or what becomes JSON; None is an empty body."""

    def __init__(self, body=None, status=200, kind="application/json", headers=()):
        self.status, self.kind, self.headers = status, kind, list(headers)
        self.text = "" if body is None else body if isinstance(body, str) and kind != "application/json" else json.dumps(body)


class Array:
    """To be derived from. All methods are called with the lock held."""

    SETTINGS = {}
    OPTIONS = ()  # more of main(), each with a value; it has them in `options`

    def __init__(self, folder, hosts, **options):
        self.lock = threading.RLock()
        self.options = options
        self.folder, self.hosts = folder, hosts  # hosts: name -> HOSTROOT
        self.faults = Faults()
        self.reset()

    # ---- what an array says ----

    def reset(self):
        """As at the start; derived classes remove their volumes first."""
        self.settings = json.loads(json.dumps(self.SETTINGS))
        self.faults.set([])
        self.calls, self.last, self.order = {}, {}, []

    def action(self, request):
        """The name of what is asked for, as faults and counts have it."""
        raise NotImplementedError

    def answer(self, request):
        raise NotImplementedError

    def answering(self):
        """What is held while it answers."""
        return self.lock

    def state(self):
        """More for GET /control."""
        return {}

    def change(self, what):
        """More of POST /control."""

    def tick(self):
        """Ten times a second: what happens by itself."""

    def close(self):
        """Takes all disks away."""

    # ---- the rest ----

    def count(self, action, request):
        self.calls[action] = self.calls.get(action, 0) + 1
        self.order = [*self.order[-999:], action]
        if request.body:
            self.last[action] = request.json()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out in one piece: two would wait for each other
    disable_nagle_algorithm = True
    array = None

    def log_message(self, *args):
        pass

    def send(self, answer):
        body = answer.text.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(body)))
        for h in answer.headers:
            self.send_header(*h)
        self.end_headers()
        self.wfile.write(body)

    def cut(self):
        self.close_connection = True
        self.connection.close()

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == "/control":
            return self.control(body)
        array, request, peer = self.array, Request(self.command, self.path, self.headers, body), self.client_address[0]
        with array.lock:
            action = array.action(request)
            array.count(action, request)
            fault = array.faults.take(action, f"{self.path} {body.decode(errors='replace')}")
        if fault["how"] == "error":
            return self.send(Answer(fault.get("body"), fault.get("status", 500), headers=fault.get("headers", [])))
        if not array.faults.before(fault, peer):
            return self.cut()
        with array.answering():
            answer = array.answer(request)
            if fault["how"] == "twice":
                answer = array.answer(request)
        if not array.faults.after(fault, peer):
            return self.cut()
        if fault["how"] == "garbage":
            answer = Answer("<html><body>It works!</body></html>", kind="text/html")
        return self.send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = serve  # noqa: N815

    def control(self, body):
        array = self.array
        with array.lock:
            if self.command == "GET":
                return self.send(Answer({"settings": array.settings, "faults": array.faults.all, "held": array.faults.held(), "calls": array.calls, "order": array.order, "last": array.last, **array.state()}))
            what = json.loads(body)
            if what.get("reset"):
                array.reset()
            array.settings.update(what.get("settings", {}))
            if "faults" in what:
                array.faults.set(what["faults"])
            if "let_go" in what:
                array.faults.let_go(what["let_go"], what.get("of"))
            if what.get("forget_calls"):
                array.calls, array.last, array.order = {}, {}, []
            array.change(what)
        return self.send(Answer({}))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    tls = None

    def finish_request(self, request, client_address):
        """In the thread of the connection: nobody waits for another one's handshake."""
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        """Clients that do not wait for their answer are part of the tests."""


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def make_tls(folder, address):
    """A server's TLS with a certificate of the authority folder/ca.pem, which is made for it."""
    ca, ca_key, key, request, cert, names = (f"{folder}/{n}" for n in ("ca.pem", "ca.key", "tls.key", "tls.csr", "tls.pem", "tls.ext"))
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=authority of the tests")
    openssl("req", *curve, "-keyout", key, "-out", request, "-subj", "/CN=array of the tests")
    with open(names, "w", encoding="ascii") as f:
        f.write("subjectAltName=DNS:localhost,IP:127.0.0.1" + (f",IP:{ipaddress.ip_address(address)}\n"))
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-out", cert, "-days", "2", "-extfile", names)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    return tls


def tick_for_ever(array):
    while True:
        time.sleep(0.1)
        with array.lock:
            array.tick()


def main(array_class):
    p = argparse.ArgumentParser()
    p.add_argument("--dir", required=True)
    p.add_argument("--host", action="append", default=[])
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--address", default="127.0.0.1")
    p.add_argument("--tls", action="store_true")
    p.add_argument("--set", default="{}")
    for name in array_class.OPTIONS:
        p.add_argument(f"--{name}", required=True)
    a = p.parse_args()
    hosts = dict(h.split("=", 1) for h in a.host)
    for folder in (a.dir, *(f"{root}/dev" for root in filter(None, hosts.values()))):
        os.makedirs(folder, exist_ok=True)
    Handler.array = array_class(a.dir, hosts, **{name: getattr(a, name) for name in array_class.OPTIONS})
    Handler.array.settings.update(json.loads(a.set))
    server = Server((a.address, a.port), Handler)
    if a.tls:
        server.tls = make_tls(a.dir, a.address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=tick_for_ever, args=(Handler.array,), daemon=True).start()
    print("port", server.server_address[1], flush=True)
    sys.stdin.read()
    server.shutdown()
    with Handler.array.lock:
        Handler.array.close()
