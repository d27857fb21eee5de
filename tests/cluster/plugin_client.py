"""Calls a host's Docker volume plugin at its socket, as dvdcli does (or as Docker would), and Docker itself."""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time

from lab import wait_until

HOSTS = ("h1", "h2", "h3")
IMAGE = "flocker-lab/busybox:1"
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]


class _Connection(http.client.HTTPConnection):
    def __init__(self, folder, timeout):
        super().__init__("plugin.moby.localhost", timeout=timeout)
        self.folder = folder

    def connect(self):
        # The whole path may be longer than a socket's address can be.
        fd = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{fd}/flocker.sock")
        finally:
            os.close(fd)


class Plugin:
    """`run`: the host's /run as seen from here."""

    def __init__(self, run, timeout=120):
        self.folder = os.path.join(run, "docker", "plugins", "flocker")
        self.timeout = timeout

    def session(self):
        return _Connection(self.folder, self.timeout)

    def call(self, name, connection=None, **body):
        """The answer, an object; what is in `Err` is not looked at."""
        with contextlib.closing(self.session()) if connection is None else contextlib.nullcontext(connection) as c:
            c.request("POST", name if name.startswith("/") else f"/VolumeDriver.{name}", json.dumps(body),
                      {"Accept": "application/vnd.docker.plugins.v1.2+json"})
            return json.loads(c.getresponse().read())

    def ok(self, name, connection=None, **body):
        answer = self.call(name, connection, **body)
        assert not answer.get("Err"), f"{name} {body}: {answer}"
        return answer

    def error(self, name, **body):
        text = self.call(name, **body).get("Err")
        assert text, f"{name} {body}: no error"
        return text


def configure(cluster, hosts, **docker):
    """Puts keys into `docker` of agent.yml and restarts the agents."""
    for host in hosts:
        path = cluster.path(host, "etc", "agent.yml")
        with open(path, encoding="utf-8") as f:
            config = json.load(f)
        config.setdefault("docker", {}).update({key.replace("_", "-"): value for key, value in docker.items()})
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)
        cluster.stop(host, "agent")
        cluster.start(host, "agent")
    wanted = {cluster.node(host) for host in hosts}
    wait_until(lambda: wanted <= {n["uuid"] for n in cluster.api.nodes()}, f"nodes {', '.join(hosts)} listed", 60)
    for host in hosts:
        plugin = Plugin(cluster.path(host, "run"))
        wait_until(lambda p=plugin: p.call("/Plugin.Activate"), f"the plugin of {host} answers")


def seconds(what):
    """How long a call takes."""
    begun = time.monotonic()
    what()
    return time.monotonic() - begun


def plugin(cluster, host):
    return Plugin(cluster.path(host, "run"))


def docker(cluster, host, *words, timeout=120):
    return cluster.run(host, "docker", *words, timeout=timeout).strip()


def fails(cluster, host, *words):
    """The words of a docker command that fails."""
    done = cluster.lab("exec", host, "sh", "-c", '"$@" 2>&1 || echo "exit $?"', "sh", "docker", *words, timeout=120)
    assert re.search(r"exit \d+$", done.strip()), f"docker {words} did not fail: {done}"
    return done


def enter(cluster, host):
    with open(cluster.path(host, "pid"), encoding="ascii") as f:
        return ["nsenter", "-t", f.read().strip(), "-m", "-p", "--"]


def in_host(cluster, host, script):
    """As cluster.shell(), without lab/cluster's own start-up time."""
    return subprocess.run([*enter(cluster, host), "sh", "-ec", script], capture_output=True, text=True, check=True, timeout=60,
                          stdin=subprocess.DEVNULL).stdout
