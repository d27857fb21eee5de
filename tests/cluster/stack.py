"""Clusters on a real Keystone and Cinder (lab/openstack), whose calls tests/openstack/between.py can spoil.

Both run in the network of the control service's host. The hosts are no servers of Nova's: they attach volumes themselves."""

import glob
import http.client
import json
import os
import subprocess
import sys

from lab import CHECKOUT, Cluster, connect_in

OPENSTACK = os.path.join(CHECKOUT, "lab", "openstack")
BETWEEN = os.path.join(CHECKOUT, "tests", "openstack", "between.py")
ATTACHMENTS = {"OpenStack-API-Version": "volume 3.27"}  # the first that shows those that are not finished


def is_built():
    return bool(glob.glob(os.path.join(CHECKOUT, "build", "cache", "cloud-data-*")))


class StackCluster(Cluster):
    def __init__(self, **settings):
        self.programs, self.known_token = [], None
        super().__init__(**{**settings, "backend": "loopback"})
        self.backend = "openstack"
        try:
            self.begin()
        except BaseException:
            self.down()
            raise

    def begin(self):
        address = self.variables["FLOCKER_CONTROL_SERVICE"]
        self.facts = json.loads(self.run_beside("the cloud", OPENSTACK, "run", "--dir", self.path("cloud"), "--auth", "keystone", "--address", address))
        self.cinder = (address, 8776)
        line = self.run_beside("what spoils calls", BETWEEN, "--dir", self.path("between"), "--address", address, "--volume", f"http://{address}:8776",
                               "--compute", f"http://{address}:8774", "--identity", f"http://{address}:5000")
        self.between = (address, int(line.split()[1]))
        for host in self.hosts():
            self.use(host)
        self.wait_nodes(self.hosts(), 120)

    def hosts(self):
        return [name.removeprefix("NODE_") for name in self.variables if name.startswith("NODE_")]

    def run_beside(self, what, *argv):
        """Runs a Python program in the network of the control service until down(); its first line."""
        with open(self.path("control", "pid"), encoding="ascii") as f:
            network = f"--net=/proc/{f.read().strip()}/ns/net"
        program = subprocess.Popen(["nsenter", network, sys.executable, "-B", *argv],  # pylint: disable=consider-using-with
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.programs.insert(0, program)
        line = program.stdout.readline()
        assert line, f"{what} did not start"
        return line

    def use(self, host):
        """The agent of the host gets this storage."""
        self.install_nfs(host)
        self.stop(host, "agent")
        path = self.path(host, "etc", "agent.yml")
        with open(path, encoding="utf-8") as f:
            config = json.load(f)
        base = "http://%s:%d" % self.between
        config["dataset"] = {
            "backend": "openstack", "attach": "cinder", "auth_plugin": "v3applicationcredential", "auth_url": f"{base}/identity/v3",
            "volume_endpoint": f"{base}/volume/v3/{self.facts['project_id']}", "region": self.facts["region"],
            "application_credential_id": self.facts["credential_id"], "application_credential_secret": self.facts["credential_secret"],
            "filesystem": config["dataset"]["filesystem"]}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        self.start(host, "agent")

    def install_nfs(self, host):
        """A program for what stands for NFS."""
        self.shell(host, f"cp {self.path('cloud', 'bin', 'mount.nfs')} /usr/sbin/mount.nfs")

    def start(self, host, process=None, **env):
        super().start(host, process, **env)
        if not process:
            self.install_nfs(host)

    def down(self):
        """Each ends what it stands on last."""
        for program in self.programs:
            program.stdin.close()
            program.wait(60)
        self.programs = []
        super().down()

    # --- what the real Cinder says, not through what spoils calls ---------------------------------------------------

    def ask(self, address, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(*address, timeout=60)
        try:
            connection.sock = connect_in(int(self.variables["CLIENT_PID"]), address, 60)
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status < 300, f"{method} {path}: {answer.status}: {data}"
            return json.loads(data), answer.headers
        finally:
            connection.close()

    def token(self):
        credential = {"id": self.facts["credential_id"], "secret": self.facts["credential_secret"]}
        return self.ask((self.cinder[0], 5000), "POST", "/v3/auth/tokens", {"auth": {"identity": {
            "methods": ["application_credential"], "application_credential": credential}}})[1]["X-Subject-Token"]

    def list_cinder(self, what, headers=None):
        self.known_token = self.known_token or self.token()
        return self.ask(self.cinder, "GET", f"/v3/{self.facts['project_id']}/{what}", None, {"X-Auth-Token": self.known_token, **(headers or {})})[0]

    def volumes(self):
        """As Cinder shows them, and of each the `hosts` that it is attached to; None is an attachment that was begun, and not finished."""
        names = {self.node(host): host for host in self.hosts()}
        volumes = self.list_cinder("volumes/detail")["volumes"]
        links = self.list_cinder("attachments", ATTACHMENTS)["attachments"]
        for v in volumes:
            v["hosts"] = [names.get(a["device"]) for a in v["attachments"]]
            v["hosts"] += [None for a in links if a["volume_id"] == v["id"] and a["status"] != "attached"]
            v["links"] = [a["id"] for a in links if a["volume_id"] == v["id"]]
        return volumes
