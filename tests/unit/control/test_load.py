"""The control service under load: many clients of the REST API at once, agents' sessions, listeners of events, connections
that break off, SIGTERM in the middle; several lives on one store. Whatever was answered is there in the next life, the
service ends by itself, and a sanitizer that it was built with reports nothing.

BIN: the folder of the programs; AGENTS: the program that plays agents (bench/agents.c)."""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import ssl
import subprocess
import threading
import time
import uuid

import pytest

BIN, AGENTS = os.environ["BIN"], os.environ["AGENTS"]
FULL = os.environ.get("FLOCKER_TEST_FULL", "") not in ("", "0")
SECONDS = 30 if FULL else 3  # of each life
LIVES = 4 if FULL else 2
WRITERS, READERS, LISTENERS, BREAKERS = 10, 6, 3, 2
DATASETS, CONTAINERS, LEASES = "/v1/configuration/datasets", "/v1/configuration/containers", "/v1/configuration/leases"
READS = [DATASETS, CONTAINERS, LEASES, "/v1/state/datasets", "/v1/state/containers", "/v1/state/nodes", "/v1/version",
         "/metrics", "/healthz", "/readyz"]
REPORT = re.compile(rb"ThreadSanitizer|AddressSanitizer|LeakSanitizer|runtime error|Assertion")


@pytest.fixture(name="certificates", scope="module")
def _certificates(tmp_path_factory):
    top = tmp_path_factory.mktemp("certificates")
    for command in (["initialize", "--key-type=ec", "load"], ["create-control-certificate", "--key-type=ec", "127.0.0.1"],
                    ["create-api-certificate", "--key-type=ec", "user"]):
        subprocess.run([os.path.join(BIN, "flocker-ca"), *command], cwd=top, check=True, timeout=120,
                       stdout=subprocess.DEVNULL)
    for end in ("crt", "key"):
        os.rename(top / f"control-127.0.0.1.{end}", top / f"control-service.{end}")
    return top


class Life:
    """One process on the store, and what it was asked."""

    def __init__(self, top, certificates, number):
        self.log = top / f"control{number}.log"
        self.certificates, self.stop = certificates, threading.Event()
        self.tls = ssl.create_default_context(cafile=str(certificates / "cluster.crt"))
        self.tls.load_cert_chain(certificates / "user.crt", certificates / "user.key")
        self.made, self.deleted, self.unsure, self.requests, self.wrong = set(), set(), set(), 0, []
        self.lock, self.ending = threading.Lock(), False
        endpoint = "tcp:0:interface=127.0.0.1"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [os.path.join(BIN, "flocker-control"), "-d", top / "data", "-c", certificates, "-p", endpoint, "-a",
                 endpoint], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        end = time.monotonic() + 60
        while not (ports := re.search(rb"REST API on port (\d+), agents on port (\d+)", self.log.read_bytes())):
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        self.port, self.agent_port = int(ports[1]), int(ports[2])

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=30)

    def start_agents(self, count, log):
        return subprocess.Popen([AGENTS, "-p", str(self.agent_port), "-c", self.certificates, f"--agents={count}"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    @contextlib.contextmanager
    def agents(self, count):
        """Once they have their sessions. While those before them are not yet gone they are refused, and end."""
        end = time.monotonic() + 60
        with open(self.log.with_suffix(".agents"), "ab") as log:
            process, up = self.start_agents(count, log), 0
            try:
                while up < count:
                    assert time.monotonic() < end, self.log.with_suffix(".agents").read_text()[-4000:]
                    if process.poll() is not None:
                        process = self.start_agents(count, log)
                    with contextlib.suppress(OSError, ValueError):  # it may end now
                        process.stdin.write("count\n")
                        process.stdin.flush()
                        up = json.loads(process.stdout.readline())["up"]
                yield process
            finally:
                process.kill()
                process.wait()
                with contextlib.suppress(OSError):
                    process.stdin.close()
                process.stdout.close()

    def ask(self, connection, method, path, body=None):
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        with self.lock:
            self.requests += 1
            if answer.status >= 500 and answer.status != 503:
                self.wrong.append(f"{method} {path}: {answer.status} {text[:200]}")
        return answer.status, text

    def nodes(self, connection):
        status, text = self.ask(connection, "GET", "/v1/state/nodes")
        return [node["uuid"] for node in json.loads(text)] if status == 200 else []

    # What the clients do, each on connections of its own until they are told to stop or the service goes away.

    def write(self, dice):
        connection, own, nodes = self.connect(), [], []
        while not self.stop.is_set():
            nodes = nodes or self.nodes(connection) or [str(uuid.UUID(int=dice.getrandbits(128), version=4))]
            what, node = dice.random(), dice.choice(nodes)
            if what < 0.45 or not own:
                made = str(uuid.UUID(int=dice.getrandbits(128), version=4))
                with self.lock:
                    self.unsure.add(made)
                status, text = self.ask(connection, "POST", DATASETS, {"primary": node, "dataset_id": made})
                with self.lock:
                    self.unsure.discard(made)
                    if status == 201:
                        self.made.add(made)
                        own.append(made)
                    else:
                        self.wrong.append(f"create: {status} {text[:200]}")
            elif what < 0.6:
                gone = own.pop(dice.randrange(len(own)))
                with self.lock:
                    self.unsure.add(gone)
                status, _ = self.ask(connection, "DELETE", f"{DATASETS}/{gone}")
                if status == 200:
                    with self.lock:
                        self.unsure.discard(gone)
                        self.deleted.add(gone)
            elif what < 0.75:
                self.ask(connection, "POST", f"{DATASETS}/{dice.choice(own)}", {"primary": node})
            elif what < 0.85:
                self.ask(connection, "POST", LEASES, {"dataset_id": dice.choice(own), "node_uuid": node,
                                                      "expires": dice.choice([None, 0.05, 60])})
            elif what < 0.92:
                self.ask(connection, "DELETE", f"{LEASES}/{dice.choice(own)}")
            else:
                name = f"load-{dice.randrange(50)}"
                if dice.random() < 0.6:
                    self.ask(connection, "POST", CONTAINERS, {"node_uuid": node, "name": name, "image": "busybox"})
                else:
                    self.ask(connection, "DELETE", f"{CONTAINERS}/{name}")

    def read(self, dice):
        connection = self.connect()
        while not self.stop.is_set():
            self.ask(connection, "GET", dice.choice(READS))

    def listen(self, dice):
        while not self.stop.is_set():
            connection = self.connect()
            connection.request("GET", "/v1/events")
            answer = connection.getresponse()
            for _ in range(dice.randrange(1, 40)):
                if self.stop.is_set() or not answer.readline():
                    break
            connection.close()

    def break_off(self, dice):
        while not self.stop.is_set():
            connection = self.connect()
            connection.connect()
            connection.sock.sendall(b"POST " + DATASETS.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
                                    [:dice.randrange(1, 80)])
            connection.close()

    def client(self, act, seed):
        try:
            act(random.Random(seed))
        except (OSError, http.client.HTTPException):
            if not self.ending:
                with self.lock:
                    self.wrong.append(f"{act.__name__}: the service went away")

    def load(self, seed):
        """Until SIGTERM, which comes in the middle."""
        acts = [self.write] * WRITERS + [self.read] * READERS + [self.listen] * LISTENERS + [self.break_off] * BREAKERS
        threads = [threading.Thread(target=self.client, args=(act, seed * 1000 + i)) for i, act in enumerate(acts)]
        for thread in threads:
            thread.start()
        with self.agents(8):  # they go away without a word
            with open(self.log.with_suffix(".agents"), "ab") as log:
                assert self.start_agents(2, log).wait(60) == 1  # other machines with the same certificates
            time.sleep(SECONDS / 2)
        with self.agents(8):
            time.sleep(SECONDS / 2)
            self.ending = True  # from here on connections may break; requests go on until they do
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            self.stop.set()
        status = self.process.wait(60)
        for thread in threads:
            thread.join(60)
        return status


def present(life):
    connection = life.connect()
    status, text = life.ask(connection, "GET", DATASETS)
    assert status == 200
    return {dataset["dataset_id"] for dataset in json.loads(text) if not dataset["deleted"]}


def test_load(certificates, tmp_path):
    made, gone, unsure = set(), set(), set()
    for number in range(LIVES + 1):
        life = Life(tmp_path, certificates, number)
        try:
            is_there = present(life)
            assert not made - gone - unsure - is_there, "acknowledged, and not there after the restart"
            assert not is_there & gone - unsure, "deleted, and there again after the restart"
            if number == LIVES:
                life.process.terminate()
                status = life.process.wait(60)
            else:
                status = life.load(number)
        finally:
            life.stop.set()
            life.process.kill()
        said = life.log.read_bytes()
        assert not REPORT.search(said), said.decode(errors="replace")[:8000]
        assert status == 0, said.decode(errors="replace")[-4000:]
        assert not life.wrong, life.wrong[:10]
        assert number == LIVES or life.requests > 50
        print(f"life {number}: {life.requests} requests, {len(life.made)} datasets made, {len(life.deleted)} deleted")
        made |= life.made
        gone |= life.deleted
        unsure |= life.unsure
