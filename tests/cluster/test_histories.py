"""Many clients at once, recorded: what each was told must fit some order in which the calls took effect one after the other
(linearizability), also when the control service is killed and started again among them."""

import http.client
import json
import os
import random
import signal
import subprocess
import threading
import time
import uuid

import pytest

from cli_programs import bin_dir
from rest_service import DATASETS, LEASES, Service

NODES = [str(uuid.UUID(int=n, version=4)) for n in (1, 2, 3)]
FULL = os.environ.get("FLOCKER_TEST_FULL", "") not in ("", "0")
CLIENTS = 8
OBJECTS = 12
SECONDS = 60 if FULL else 6
NEVER = float("inf")


@pytest.fixture(name="service")
def _service(tmp_path):
    made = Service(tmp_path)
    yield made
    made.close()


# --- the checker ------------------------------------------------------------------------------------------------------


class Call:
    """One call about one object: when it began and ended (NEVER: no answer came), what was asked, what was answered."""

    def __init__(self, began, ended, asked, answered):
        self.began, self.ended, self.asked, self.answered = began, ended, asked, answered

    def __repr__(self):
        return f"{self.began:.6f}-{self.ended:.6f} {self.asked} -> {self.answered}"


def find_order(calls, start, step):
    """Can `calls` be put into an order that fits their times, with step(state, asked) -> (state, answer) giving their
    answers? A call without an answer may have had its effect at any time after its begin, or never. (Wing and Gong's
    search; what was tried, as the set of calls done and the state, is not tried again.)"""
    calls = sorted(calls, key=lambda c: c.began)
    answered = sum(1 << i for i, c in enumerate(calls) if c.ended != NEVER)
    tried, stack = set(), [(0, start)]
    while stack:
        done, state = stack.pop()
        if done & answered == answered:
            return True
        left = [i for i in range(len(calls)) if not done >> i & 1]
        first_end = min(calls[i].ended for i in left)
        for i in left:
            call = calls[i]
            if call.began > first_end:
                break
            after, answer = step(state, call.asked)
            if call.ended != NEVER and answer != call.answered:
                continue
            entry = (done | 1 << i, after)
            if entry not in tried:
                tried.add(entry)
                stack.append(entry)
    return False


def dataset_step(state, asked):
    """State: None, or (primary, deleted)."""
    what, node = asked
    if what == "read":
        return state, state
    if what == "create":
        return (state, 409) if state else ((node, False), 201)
    if state is None:
        return state, 404
    if what == "delete":
        return (state[0], True), 200
    return (state, 405) if state[1] else ((node, False), 200)


def lease_step(state, asked):
    """State: the node that has it, or None."""
    what, node = asked
    if what == "read":
        return state, state
    if what == "release":
        return (None, 200) if state else (state, 404)
    if state is None:
        return node, 201
    return state, 200 if state == node else 409


def test_the_checker_notices():
    read, one, two = ("read", None), (NODES[0], False), (NODES[1], False)
    made = Call(0, 1, ("create", NODES[0]), 201)
    moved = Call(2, 4, ("move", NODES[1]), 200)
    assert find_order([made, moved, Call(3, 5, read, one), Call(3, 5, read, two)], None, dataset_step)
    assert not find_order([made, moved, Call(5, 6, read, one)], None, dataset_step)  # a stale read
    assert not find_order([made, moved, Call(2, 3, read, two), Call(3.5, 3.9, read, one)], None, dataset_step)
    assert not find_order([Call(0, 1, ("acquire", NODES[0]), 201), Call(0, 1, ("acquire", NODES[1]), 201)], None, lease_step)
    lost = Call(2, NEVER, ("move", NODES[1]), None)
    assert find_order([made, lost, Call(5, 6, read, one)], None, dataset_step)
    assert find_order([made, lost, Call(5, 6, read, one), Call(7, 8, read, two)], None, dataset_step)
    assert not find_order([made, lost, Call(5, 6, read, two), Call(7, 8, read, one)], None, dataset_step)


# --- the clients ------------------------------------------------------------------------------------------------------


class Client(threading.Thread):
    """Calls at random until told to stop; keeps what it saw, by object."""

    def __init__(self, service, seed, datasets, stop):
        super().__init__(daemon=True)
        self.service, self.random, self.datasets, self.stop = service, random.Random(seed), datasets, stop
        self.history = {(kind, d): [] for kind in ("dataset", "lease") for d in datasets}
        self.connection = None
        self.trouble = None

    def call(self, method, path, body=None):
        """(status, JSON), or None when no answer came."""
        try:
            if self.connection is None:
                self.connection = self.service.connect()
            self.connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = self.connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return None

    def note(self, key, asked, answered, began):
        ended = time.monotonic() if answered is not None else NEVER
        if answered is None and asked[0] == "read":
            return
        self.history[key].append(Call(began, ended, asked, answered))

    def read_datasets(self, began):
        got = self.call("GET", DATASETS)
        if not got:
            return
        listed = {d["dataset_id"]: (d["primary"], d["deleted"]) for d in got[1]}
        ended = time.monotonic()
        for one in self.datasets:
            self.history["dataset", one].append(Call(began, ended, ("read", None), listed.get(one)))

    def read_leases(self, began):
        got = self.call("GET", LEASES)
        if not got:
            return
        listed = {d["dataset_id"]: d["node_uuid"] for d in got[1]}
        ended = time.monotonic()
        for one in self.datasets:
            self.history["lease", one].append(Call(began, ended, ("read", None), listed.get(one)))

    def change(self, what, one, node, began):
        method, path, body, kind = {
            "create": ("POST", DATASETS, {"dataset_id": one, "primary": node}, "dataset"),
            "move": ("POST", f"{DATASETS}/{one}", {"primary": node}, "dataset"),
            "delete": ("DELETE", f"{DATASETS}/{one}", None, "dataset"),
            "acquire": ("POST", LEASES, {"dataset_id": one, "node_uuid": node, "expires": None}, "lease"),
            "release": ("DELETE", f"{LEASES}/{one}", None, "lease"),
        }[what]
        got = self.call(method, path, body)
        assert not got or got[0] in (200, 201, 404, 405, 409), got
        if got and got[0] == 409 and "is just leaving" in got[1]["description"]:
            return  # refused because of the dataset, whatever the lease
        self.note((kind, one), (what, node), got and got[0], began)

    def turn(self):
        one, node = self.random.choice(self.datasets), self.random.choice(NODES)
        what = self.random.choice(["create", "move", "move", "acquire", "acquire", "release", "datasets", "leases"]
                                  + ["delete"] * (self.random.random() < 0.2))
        began = time.monotonic()
        if what == "datasets":
            self.read_datasets(began)
        elif what == "leases":
            self.read_leases(began)
        else:
            self.change(what, one, node, began)
        if self.connection is None:
            time.sleep(0.05)

    def run(self):
        try:
            while not self.stop.is_set():
                self.turn()
        except BaseException as trouble:  # pylint: disable=broad-except
            self.trouble = trouble


def run_clients(service, kills):
    """Histories by object, in rounds of new objects: a search over a long history is long."""
    stop = threading.Event()
    seed = random.randrange(1 << 32)
    print("seed", seed)
    datasets = [str(uuid.UUID(int=random.getrandbits(128), version=4)) for _ in range(OBJECTS)]
    clients = [Client(service, seed + n, datasets, stop) for n in range(CLIENTS)]
    for c in clients:
        c.start()
    for how in kills:
        time.sleep(0.7)
        service.stop(how)
        service.start()
    time.sleep(0.5)
    stop.set()
    for c in clients:
        c.join(30)
        assert not c.is_alive() and c.trouble is None, c.trouble
    return {key: [call for c in clients for call in c.history[key]] for key in clients[0].history}


def check(histories):
    changes = 0
    for (kind, one), calls in histories.items():
        changes += sum(c.asked[0] != "read" for c in calls)
        assert find_order(calls, None, dataset_step if kind == "dataset" else lease_step), (
            f"no order explains what clients saw of {kind} {one}:\n" + "\n".join(map(str, sorted(calls, key=lambda c: c.began))))
    return changes


def test_clients_agree_on_one_order(service):
    end, changes = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        changes += check(run_clients(service, []))
    assert changes > 200


def test_nothing_acknowledged_is_lost_by_restarts(service):
    end, changes = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        changes += check(run_clients(service, [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]))
    assert changes > 200


# --- flockerctl events ------------------------------------------------------------------------------------------------


def test_events_are_followed_through_a_restart(service):
    words = [bin_dir() / "flockerctl", "--certs-path", service.top, "--control-service", "127.0.0.1", "--control-port", service.port,
             "events", "--follow"]
    with subprocess.Popen(list(map(str, [*words, "-o", "json"])), stdout=subprocess.PIPE, text=True) as ctl, \
            subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True) as plain:
        try:
            one = str(uuid.uuid4())
            end = time.monotonic() + 20  # until both listen: they hear only of what comes after
            heard = threading.Event()
            threading.Thread(target=lambda: (ctl.stdout.readline(), plain.stdout.readline(), heard.set()), daemon=True).start()
            while not heard.wait(0.2):
                assert time.monotonic() < end
                service.call("POST", DATASETS, {"primary": NODES[0]})
            service.stop()
            service.start()
            said = {"event": ""}
            while said["event"] != "resync":  # it has come back, and knows that it may have missed something
                said = json.loads(ctl.stdout.readline())
            while "some events were missed" not in plain.stdout.readline():
                pass
            service.call("POST", DATASETS, {"dataset_id": one, "primary": NODES[0]})
            said = json.loads(ctl.stdout.readline())
            assert (said["event"], said["id"]) == ("dataset", one)
            assert said["detail"]["reason"]["code"] == "node-disconnected"
            line = ""
            while one not in line:
                line = plain.stdout.readline()
            assert "dataset" in line and "pending; node-disconnected:" in line, line
        finally:
            ctl.kill()
            plain.kill()


def test_events_without_a_control_service(service):
    service.stop()
    done = subprocess.run([bin_dir() / "flockerctl", "--certs-path", service.top, "--control-service", "127.0.0.1", "--control-port",
                           str(service.port), "events"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "cannot reach the control service at 127.0.0.1" in done.stderr, done
