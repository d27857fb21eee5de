"""What the cluster tests stand on: clusters of the lab, and a client of the REST API that lives in their network."""

import ctypes
import http.client
import json
import os
import shlex
import socket
import ssl
import subprocess
import tempfile
import threading
import time

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
CLUSTER = os.path.join(CHECKOUT, "lab", "cluster")
CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


class WaitTimeout(AssertionError):
    """Something did not come about in time."""


def wait_until(test, what, timeout=30.0, interval=0.1, tolerate=(OSError, http.client.HTTPException)):
    """The first true value that `test` returns. Errors of the kinds in `tolerate` count as "not yet"; the last
    value or error is in the message when the time is over."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            last = test()
            if last:
                return last
        except tolerate as e:
            last = e
        if time.monotonic() >= end:
            raise WaitTimeout(f"{what}: not within {timeout:g} s; last: {last!r}")
        time.sleep(interval)


def holds(test, what, seconds, interval=0.1):
    """Asserts that `test` stays true for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert test(), f"{what}: did not hold"
        time.sleep(interval)


def memory(pid):
    """Private dirty and resident bytes of a process."""
    fields = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        for line in list(f)[1:]:
            key, value = line.split()[:2]
            fields[key.rstrip(":")] = int(value) * 1024
    return fields["Private_Dirty"], fields["Rss"]


def connect_in(pid, address, timeout):
    """A TCP connection made in the network namespace of a process. A socket keeps the namespace it was made in, so
    only a short-lived thread has to enter it."""
    result = []

    def work():
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if libc.setns(fd, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns to the network of {pid}")
            finally:
                os.close(fd)
            result.append(socket.create_connection(address, timeout))
            # As http.client does by itself: headers and body are two writes, the second would wait for an answer.
            result[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as e:
            result.append(e)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


class ApiError(Exception):
    def __init__(self, status, body, what):
        super().__init__(f"{what}: {status}: {body}")
        self.status = status
        self.body = body


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)


class _Connection(http.client.HTTPSConnection):
    def __init__(self, pid, host, port, context, timeout):
        super().__init__(host, port, context=context, timeout=timeout)
        self.pid = pid
        self.tls = context

    def connect(self):
        plain = connect_in(self.pid, (self.host, self.port), self.timeout)
        self.sock = self.tls.wrap_socket(plain, server_hostname=self.host)


def https_in(pid, address, port, authority, timeout=30.0):
    """A connection, not yet made, from the network of a process to a server whose certificate that authority signed."""
    return _Connection(pid, address, port, ssl.create_default_context(cafile=authority), timeout)


class Api:
    """The REST API, called from the client host. One connection a call unless `session()` is used."""

    def __init__(self, pid, address, port, certificates, user="user", timeout=30.0):
        self.pid = pid
        self.address = address
        self.port = port
        self.timeout = timeout
        # Not create_default_context(): newer Pythons add strictness there that old certificates cannot meet.
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.load_verify_locations(os.path.join(certificates, "cluster.crt"))
        self.tls.load_cert_chain(os.path.join(certificates, f"{user}.crt"), os.path.join(certificates, f"{user}.key"))

    def session(self, timeout=None):
        return _Connection(self.pid, self.address, self.port, self.tls, timeout or self.timeout)

    def call(self, method, path, body=None, headers=None):
        """Any status is an answer."""
        connection = self.session()
        try:
            data = json.dumps(body) if body is not None and not isinstance(body, (bytes, str)) else body
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def expect(self, method, path, body=None, status=(200, 201)):
        answer = self.call(method, path, body)
        if answer.status not in status:
            raise ApiError(answer.status, answer.body.decode(errors="replace"), f"{method} {path}")
        return answer.json()

    def nodes(self):
        return self.expect("GET", "/v1/state/nodes")

    def datasets(self):
        return self.expect("GET", "/v1/configuration/datasets")

    def dataset_states(self):
        return self.expect("GET", "/v1/state/datasets")

    def dataset_state(self, dataset):
        """The state of one dataset: where it is mounted if anywhere, else None or an entry without `path`."""
        entries = [d for d in self.dataset_states() if d["dataset_id"] == dataset]
        mounted = [d for d in entries if "path" in d]
        return (mounted or entries or [None])[0]

    def create_dataset(self, node, maximum_size=None, metadata=None, dataset_id=None):
        body = {"primary": node}
        for key, value in (("maximum_size", maximum_size), ("metadata", metadata), ("dataset_id", dataset_id)):
            if value is not None:
                body[key] = value
        return self.expect("POST", "/v1/configuration/datasets", body)["dataset_id"]

    def move_dataset(self, dataset, node):
        return self.expect("POST", f"/v1/configuration/datasets/{dataset}", {"primary": node})

    def delete_dataset(self, dataset):
        return self.expect("DELETE", f"/v1/configuration/datasets/{dataset}")

    def containers(self):
        return self.expect("GET", "/v1/configuration/containers")

    def container_states(self):
        return self.expect("GET", "/v1/state/containers")

    def create_container(self, node, name, image, **settings):
        return self.expect("POST", "/v1/configuration/containers",
                           {"node_uuid": node, "name": name, "image": image, **settings})

    def move_container(self, name, node):
        return self.expect("POST", f"/v1/configuration/containers/{name}", {"node_uuid": node})

    def delete_container(self, name):
        return self.expect("DELETE", f"/v1/configuration/containers/{name}")

    def leases(self):
        return self.expect("GET", "/v1/configuration/leases")

    def acquire_lease(self, dataset, node, expires=None):
        return self.expect("POST", "/v1/configuration/leases",
                           {"dataset_id": dataset, "node_uuid": node, "expires": expires})

    def release_lease(self, dataset):
        return self.expect("DELETE", f"/v1/configuration/leases/{dataset}")


class Cluster:
    """One cluster of the lab, in a directory of its own."""

    def __init__(self, nodes=3, backend="btrfs", docker=False, flocker=True, images=(), options=()):
        top = os.path.join(CHECKOUT, "build", "lab")
        os.makedirs(top, exist_ok=True)
        self.directory = tempfile.mkdtemp(prefix="test-", dir=top)
        self.backend = backend
        self.variables = {}
        self.api = None
        words = ["up", "--nodes", str(nodes), "--backend", backend, *options]
        words += [] if docker else ["--no-docker"]
        words += [] if flocker else ["--no-flocker"]
        try:
            self.lab(*words)
            if images:
                self.lab("images", *(f"--only={image}" for image in images), timeout=600)
            self.refresh()
        except BaseException:
            self.down()
            raise

    def lab(self, *words, timeout=180, check=True):
        done = subprocess.run([CLUSTER, "--dir", self.directory, *words], capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"lab/cluster {shlex.join(words)}: exit {done.returncode}:\n{done.stderr}{done.stdout}")
        return done.stdout

    def refresh(self):
        for line in self.lab("env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.variables[name] = "".join(shlex.split(value))
        if self.variables["FLOCKER_CERTS_PATH"] and self.node("h1"):
            self.api = Api(int(self.variables["CLIENT_PID"]), self.variables["FLOCKER_CONTROL_SERVICE"],
                           int(self.variables["FLOCKER_CONTROL_PORT"]), self.variables["FLOCKER_CERTS_PATH"])

    def down(self):
        self.lab("down", timeout=300)
        if os.path.isdir(self.directory):
            os.rmdir(self.directory)  # fails when something was left in it: that is a fault

    def node(self, host):
        """The uuid of a host's node."""
        return self.variables.get(f"NODE_{host}")

    def address(self, host):
        return self.variables[f"ADDRESS_{host}"]

    def status(self):
        return json.loads(self.lab("status", "--json"))

    def path(self, *parts):
        """A file of the cluster as seen from outside: path("h1", "log", "agent")."""
        status = getattr(self, "_base", None)
        if status is None:
            status = self._base = self.status()["base"]
        return os.path.join(status, *parts)

    def process_pid(self, host, process):
        """The pid, as seen from outside, of a host's agent or control service."""
        inside = self.shell(host, f"cat /run/lab-{process}.pid").strip()
        with open(self.path(host, "pid"), encoding="ascii") as f:
            space = os.readlink(f"/proc/{f.read().strip()}/ns/pid")
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/status", encoding="utf-8", errors="replace") as f:
                    numbers = next((line.split()[1:] for line in f if line.startswith("NSpid:")), [])
                if numbers[-1:] == [inside] and os.readlink(f"/proc/{entry}/ns/pid") == space:
                    return int(entry)
            except OSError:
                pass
        raise WaitTimeout(f"no {process} on {host}")

    def run(self, host, *argv, timeout=60, check=True):
        """Runs a program on a host; its output."""
        return self.lab("exec", host, *argv, timeout=timeout, check=check)

    def shell(self, host, script, timeout=60, check=True):
        return self.run(host, "sh", "-ec", script, timeout=timeout, check=check)

    def ctl(self, *words, timeout=120, check=True):
        return self.lab("ctl", *words, timeout=timeout, check=check)

    def kill(self, host, process=None):
        self.lab("kill", host, *([process] if process else []))

    def start(self, host, process=None, **env):
        words = [f"--env={name}={value}" for name, value in env.items()]
        self.lab("start", host, *([process] if process else []), *words)

    def stop(self, host, process):
        self.lab("stop", host, process)

    def partition(self, host):
        self.lab("partition", host)

    def heal(self, host):
        self.lab("heal", host)

    # --- waits that most tests need --------------------------------------------------------------------------------

    def wait_mounted(self, dataset, host, timeout=60):
        """The state says that the dataset is on the host, with a path; returns that state."""
        def there():
            state = self.api.dataset_state(dataset)
            return state if state and state.get("primary") == self.node(host) and "path" in state else None
        return wait_until(there, f"dataset {dataset} on {host}", timeout)

    def wait_gone(self, dataset, timeout=60):
        return wait_until(lambda: all(d["dataset_id"] != dataset for d in self.api.dataset_states()),
                          f"dataset {dataset} gone from the state", timeout)

    def wait_container(self, name, host, timeout=60):
        def there():
            for container in self.api.container_states():
                if container["name"] == name and container["node_uuid"] == self.node(host) and container["running"]:
                    return container
            return None
        return wait_until(there, f"container {name} running on {host}", timeout)

    def wait_nodes(self, hosts, timeout=60):
        wanted = {self.node(host) for host in hosts}
        return wait_until(lambda: {n["uuid"] for n in self.api.nodes()} == wanted, f"nodes {', '.join(hosts)} listed",
                          timeout)

    def report(self):
        """For the log of a failed test: what runs, what the API says, the ends of the logs."""
        parts = [self.lab("status", check=False)]
        for path in ("/v1/state/nodes", "/v1/configuration/datasets", "/v1/state/datasets",
                     "/v1/configuration/containers", "/v1/state/containers", "/v1/configuration/leases"):
            if self.api is None:
                break
            try:
                parts.append(f"GET {path}: {self.api.call('GET', path).body.decode(errors='replace')}")
            except (OSError, http.client.HTTPException) as e:
                parts.append(f"GET {path}: {e!r}")
        try:
            for dataset in self.api.datasets() if self.api else []:
                parts.append(self.ctl("why", dataset["dataset_id"], check=False))
            for container in self.api.containers() if self.api else []:
                parts.append(self.ctl("why", container["name"], check=False))
        except (OSError, http.client.HTTPException, ApiError) as e:
            parts.append(f"why: {e!r}")
        parts.append(self.lab("logs", check=False))
        return "\n".join(parts)
