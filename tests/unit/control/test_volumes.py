"""Agents' calls about Docker volumes, and the catalogue, over real sessions with the real control service.

BIN: the folder of the programs; AGENTS: the program that plays agents (bench/agents.c)."""

import collections
import http.client
import json
import os
import re
import ssl
import subprocess
import time

import pytest

BIN, AGENTS = os.environ["BIN"], os.environ["AGENTS"]
DATASETS, LEASES = "/v1/configuration/datasets", "/v1/configuration/leases"


class Control:
    def __init__(self, top):
        self.top, self.log, self.process = top, top / "log", None
        for command in (["initialize", "--key-type=ec", "volumes"], ["create-control-certificate", "--key-type=ec", "127.0.0.1"],
                        ["create-api-certificate", "--key-type=ec", "user"]):
            subprocess.run([os.path.join(BIN, "flocker-ca"), *command], cwd=top, check=True, timeout=120, stdout=subprocess.DEVNULL)
        for end in ("crt", "key"):
            os.rename(top / f"control-127.0.0.1.{end}", top / f"control-service.{end}")
        self.tls = ssl.create_default_context(cafile=str(top / "cluster.crt"))
        self.tls.load_cert_chain(top / "user.crt", top / "user.key")
        self.start()

    def start(self):
        endpoint = "tcp:0:interface=127.0.0.1"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [os.path.join(BIN, "flocker-control"), "-d", self.top / "data", "-c", self.top, "-p", endpoint, "-a", endpoint],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        end = time.monotonic() + 60
        while not (ports := re.search(rb"REST API on port (\d+), agents on port (\d+)", self.log.read_bytes())):
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        self.port, self.agent_port = int(ports[1]), int(ports[2])

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()

    def call(self, method, path, body=None):
        c = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=30)
        c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        answer = c.getresponse()
        status, text = answer.status, answer.read()
        c.close()
        return status, json.loads(text)

    def get(self, path):
        status, value = self.call("GET", path)
        assert status == 200, value
        return value

    def by_name(self, name):
        return [d for d in self.get(DATASETS) if d["metadata"].get("name") == name and not d["deleted"]]

    def leases(self):
        return {lease["dataset_id"]: lease for lease in self.get("/v1/state/leases")}


class Agents:
    """So many nodes with sessions; gone with the `with`."""

    def __init__(self, control, count):
        self.count = count
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [AGENTS, "-p", str(control.agent_port), "-c", control.top, f"--agents={count}", "--volumes"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        self.wait(lambda n: n["ready"] == count and n["whole"] == count)

    def wait(self, holds, seconds=60):
        end = time.monotonic() + seconds
        while not holds(numbers := self.numbers()):
            assert time.monotonic() < end, numbers
            time.sleep(0.02)
        return numbers

    def say(self, *lines):
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()
        return [json.loads(self.process.stdout.readline()) for _ in lines]

    def numbers(self):
        return self.say("count")[0]

    def codes(self, *lines):
        return [answer["code"] for answer in self.say(*lines)]

    def in_turn(self, *lines):
        """Each after the answer to the one before: an answer that needs no commit comes at once."""
        return [self.codes(line)[0] for line in lines]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(name="control", scope="module")
def _control(tmp_path_factory):
    made = Control(tmp_path_factory.mktemp("volumes"))
    yield made
    made.stop()


def test_one_of_each_name(control):
    """Created by five nodes at the same time."""
    with Agents(control, 5) as agents:
        lines = [f"create {n} same-{i}" for i in range(40) for n in range(5)]
        codes = collections.Counter(agents.codes(*lines))
        assert codes == {"created": 40, "ok": 160}
        assert all(len(control.by_name(f"same-{i}")) == 1 for i in range(40))
        assert agents.codes(*[f"remove {i % 5} same-{i}" for i in range(40)]) == ["ok"] * 40
        assert not any(control.by_name(f"same-{i}") for i in range(40))


def test_use(control):
    with Agents(control, 3) as agents:
        assert agents.in_turn("use 0 none m1", "create 0 db", "use 0 db m1", "use 0 db m2", "use 0 db m1") == [
            "not-found", "created", "ok", "ok", "ok"]
        one = control.by_name("db")[0]["dataset_id"]
        lease = control.leases()[one]
        assert lease["mounts"] == ["m1", "m2"] and not lease["acquired"] and lease["expires"] is None
        assert abs(lease["since"] - time.time()) < 60
        assert {k: v for k, v in lease.items() if k not in ("acquired", "since", "mounts")} in control.get(LEASES)
        held = agents.say("use 1 db m9")[0]
        assert held["code"] == "held" and "(2 mounts), since 20" in held["text"] and lease["node_uuid"][:8] in held["text"]
        detail = control.get(f"/v1/state/datasets/{one}")
        assert detail["lease"]["mounts"] == ["m1", "m2"]
        assert [w["node_uuid"] for w in detail["waiting"]] != [lease["node_uuid"]] and len(detail["waiting"]) == 1
        assert agents.in_turn("remove 2 db", "unuse 1 db m9", "unuse 0 db m1", "unuse 0 db m1", "remove 2 db", "unuse 0 db m2") == [
            "held", "ok", "ok", "ok", "held", "ok"]
        assert one not in control.leases()
        assert control.get(f"/v1/state/datasets/{one}")["waiting"] == []
        assert agents.in_turn("use 1 db m9") == ["ok"]
        assert control.by_name("db")[0]["primary"] == control.leases()[one]["node_uuid"] != lease["node_uuid"]
        assert agents.in_turn("unuse 1 db m9", "remove 1 db", "remove 1 db") == ["ok", "ok", "ok"]


def test_a_reboot_leaves_no_lease(control):
    """Agents that come back and tell no mounts had none; before they are back, nothing is dropped. A restart of the control service
    forgets nothing."""
    with Agents(control, 2) as agents:
        assert agents.in_turn("create 0 kept", "use 0 kept m1") == ["created", "ok"]
    one = control.by_name("kept")[0]["dataset_id"]
    control.stop()
    control.start()
    assert control.leases()[one]["mounts"] == ["m1"]
    time.sleep(0.5)
    assert one in control.leases()
    with Agents(control, 2):
        end = time.monotonic() + 10
        while one in control.leases():
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_release_by_the_api(control):
    with Agents(control, 2) as agents:
        assert agents.in_turn("create 0 forced", "use 0 forced m1") == ["created", "ok"]
        one = control.by_name("forced")[0]["dataset_id"]
        assert control.call("POST", LEASES, {"dataset_id": one, "node_uuid": "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f", "expires": None})[0] == 409
        status, lease = control.call("DELETE", f"{LEASES}/{one}")
        assert status == 200 and sorted(lease) == ["dataset_id", "expires", "node_uuid"]
        assert one not in control.leases()
        assert agents.in_turn("use 1 forced m2", "unuse 1 forced m2") == ["ok", "ok"]


def test_bad_names(control):
    with Agents(control, 1) as agents:
        answer = agents.say("create 0 " + "x" * 257)[0]
        assert (answer["code"], answer["text"]) == ("invalid", "a volume's name has 1 to 256 characters, in one line")


def test_the_catalogue(control):
    """10,000 volumes: whole at first, then one message a change; what has no name costs nothing."""
    node = "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
    connection = http.client.HTTPSConnection("127.0.0.1", control.port, context=control.tls, timeout=30)

    def create(metadata):
        connection.request("POST", DATASETS, json.dumps({"primary": node, "metadata": metadata}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 201, body
        return body["dataset_id"]

    with Agents(control, 1) as agents:
        first = agents.numbers()["volumes"]
        count = 10000 if os.environ.get("FLOCKER_TEST_FULL", "") not in ("", "0") else 500
        lines = [f"create 0 many-{i}" for i in range(count)]
        began = time.monotonic()
        for i in range(0, count, 100):  # no more than a session may have without an answer
            assert set(agents.codes(*lines[i:i + 100])) <= {"created", "ok"}
        print(f"{count} volumes created in {time.monotonic() - began:.2f} s")
        agents.wait(lambda n: n["volumes"] >= first + count)
    with Agents(control, 4) as agents:
        began = time.monotonic()
        numbers = agents.numbers()
        print(f"{numbers['volumes']} entries for 4 agents, {numbers['volume_bytes']} bytes")
        assert numbers["volumes"] >= 4 * count
        time.sleep(1)
        before = agents.numbers()["volumes"]
        create({"name": "one-more"})
        agents.wait(lambda n: n["volumes"] >= before + 4)
        create({"other": "x"})
        time.sleep(0.5)
        after = agents.numbers()["volumes"]
        assert after - before <= 12  # the one, as it changes, to each
        print(f"a new volume: {after - before} messages to 4 agents")
    connection.close()
