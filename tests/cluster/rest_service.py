"""A control service of its own on loopback, with TLS and a cluster authority made for it; no agents, no namespaces."""

import http.client
import json
import os
import re
import signal
import ssl
import subprocess

from cli_programs import bin_dir, ok
from lab import wait_until

DATASETS = "/v1/configuration/datasets"
CONTAINERS = "/v1/configuration/containers"
LEASES = "/v1/configuration/leases"


def make_authority(top):
    """Certificates: cluster, control-service, user `user`, and the node's."""
    ok("flocker-ca", "initialize", "--key-type", "ec", "rest", cwd=top)
    ok("flocker-ca", "create-api-certificate", "--key-type", "ec", "user", cwd=top)
    ok("flocker-ca", "create-control-certificate", "--key-type", "ec", "127.0.0.1", cwd=top)
    for suffix in (".crt", ".key"):
        os.rename(top / f"control-127.0.0.1{suffix}", top / f"control-service{suffix}")


class Answer:
    def __init__(self, answer):
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:2000]!r}"


class Service:
    """Folder `top` gets the certificates and the store. `options`: more of flocker-control's; `prefix`: words before it."""

    def __init__(self, top, *options, prefix=()):
        self.top, self.options, self.prefix, self.process = top, list(map(str, options)), list(prefix), None
        if not (top / "cluster.crt").exists():
            make_authority(top)
        self.tls = ssl.create_default_context(cafile=str(top / "cluster.crt"))
        self.tls.load_cert_chain(top / "user.crt", top / "user.key")
        self.log = top / "log"
        self.port = 0
        self.start()

    def start(self):
        words = [*self.prefix, bin_dir() / "flocker-control", "--data-path", self.top / "data", "--port",
                 f"tcp:{self.port}:interface=127.0.0.1", "--agent-port", "tcp:0:interface=127.0.0.1",
                 "--certificates-directory", self.top, "--logfile", self.log, *self.options]
        begin = self.log.stat().st_size if self.log.exists() else 0
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            list(map(str, words)), stdin=subprocess.DEVNULL)
        said = wait_until(lambda: self.process.poll() is not None or re.search(
            r"REST API on port (\d+)", self.log.read_text()[begin:] if self.log.exists() else ""), "it serves", 20)
        assert said is not True, self.log.read_text()
        self.port = int(said[1])

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(20)
        assert status == (0 if how == signal.SIGTERM else -how), (status, self.log.read_text()[-2000:])

    def close(self):
        """Ends it; it must end well."""
        try:
            self.stop()
        finally:
            self.process.kill()
            self.process.wait()

    def connect(self, timeout=20):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.tls)
        connection.connect()
        return connection

    def call(self, method, path, body=None, headers=()):
        """`body`: bytes as they are, anything else as JSON. `headers`: pairs."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = self.connect()
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None or method == "POST":
                connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
            return Answer(connection.getresponse())
        finally:
            connection.close()
