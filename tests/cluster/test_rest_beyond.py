"""What the REST API can do that its old clients never asked for: purge, pages, filters, compression, events from a point on,
metrics, health, the audit log."""

import gzip
import json
import re
import signal
import subprocess
import time
import uuid

import pytest

from lab import wait_until
from rest_service import CONTAINERS, DATASETS, LEASES, Service

A, B = "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f", "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory):
    top = tmp_path_factory.mktemp("rest")
    made = Service(top, "--audit-log", top / "audit")
    yield made
    made.close()
    assert "defect:" not in made.log.read_text()


def create(service, node=A, **more):
    answer = service.call("POST", DATASETS, {"primary": node, **more})
    assert answer.status == 201, answer
    return answer.json()["dataset_id"]


def get(service, path, headers=()):
    answer = service.call("GET", path, headers=headers)
    assert answer.status == 200, answer
    return answer


# --- purge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deleted_before", [False, True])
def test_purge(service, deleted_before):
    one = create(service, metadata={"name": "short-lived"})
    if deleted_before:
        assert service.call("DELETE", f"{DATASETS}/{one}").status == 200
    for wrong in ("maybe", "", "1"):
        answer = service.call("DELETE", f"{DATASETS}/{one}?purge={wrong}")
        assert (answer.status, answer.json()["description"]) == (400, "The parameter purge must be true or false.")
    answer = service.call("DELETE", f"{DATASETS}/{one}?purge=true")
    assert answer.status == 200 and answer.json()["deleted"], answer
    wait_until(lambda: one not in str(get(service, DATASETS).json()), "it is forgotten", 5)
    assert service.call("DELETE", f"{DATASETS}/{one}?purge=true").status == 404
    assert service.call("GET", f"/v1/state/datasets/{one}").status == 404
    assert create(service, dataset_id=one) == one


def test_no_purge(service):
    one = create(service)
    assert service.call("DELETE", f"{DATASETS}/{one}?purge=false").status == 200
    assert [d["deleted"] for d in get(service, DATASETS).json() if d["dataset_id"] == one] == [True]


# --- update -----------------------------------------------------------------------------------------------------------

MIB64 = 67108864
SHRINKS = "The maximum_size of a dataset can only grow, and only when it had one."


def update(service, one, body):
    answer = service.call("POST", f"{DATASETS}/{one}", body)
    return answer.json() if answer.status == 200 else (answer.status, answer.json()["description"])


def test_update(service):
    one = create(service, maximum_size=MIB64, metadata={"name": "a", "b": "c"})
    was = update(service, one, {})
    assert update(service, one, {"metadata": {"name": "z"}}) == {**was, "metadata": {"name": "z"}}
    assert update(service, one, {"metadata": {}, "primary": B}) == {**was, "metadata": {}, "primary": B}
    assert update(service, one, {"maximum_size": 2 * MIB64})["maximum_size"] == 2 * MIB64
    for same in ({"maximum_size": 2 * MIB64}, {"maximum_size": None}, {"primary": B}, {"metadata": {}}):
        tag = get(service, DATASETS).headers["X-Configuration-Tag"]
        assert update(service, one, same) == {**was, "metadata": {}, "primary": B, "maximum_size": 2 * MIB64}
        assert get(service, DATASETS).headers["X-Configuration-Tag"] == tag
    # All or nothing.
    assert update(service, one, {"maximum_size": MIB64, "primary": A, "metadata": {"x": "y"}}) == (409, SHRINKS)
    assert update(service, one, {})["primary"] == B
    assert update(service, create(service), {"maximum_size": MIB64}) == (409, SHRINKS)
    service.stop()
    service.start()
    assert update(service, one, {}) == {**was, "metadata": {}, "primary": B, "maximum_size": 2 * MIB64}
    service.call("DELETE", f"{DATASETS}/{one}")
    assert update(service, one, {"metadata": {}}) == (405, "The dataset has been deleted.")


# --- pages and filters ------------------------------------------------------------------------------------------------


def pages(service, path):
    """All items, page by page."""
    found = []
    while path:
        answer = get(service, path)
        found.append(answer.json())
        link = answer.headers["Link"]
        path = re.fullmatch(r'<(.*)>; rel="next"', link)[1] if link else None
    return found


def test_pages_of_datasets(service):
    made = [create(service, B if i % 3 else A, metadata={"name": f"page {i % 5}/é&="}) for i in range(25)]
    everything = get(service, DATASETS).json()
    for limit in (1, 7, len(everything), 100000):
        got = pages(service, f"{DATASETS}?limit={limit}")
        assert all(len(p) == limit for p in got[:-1]) and 0 < len(got[-1]) <= limit
        assert sum(got, []) == sorted(everything, key=lambda d: d["dataset_id"])
    named = pages(service, f"{DATASETS}?limit=2&name=page%202/%C3%A9%26%3D")
    assert [len(p) for p in named] == [2, 2, 1]
    assert sorted(d["dataset_id"] for d in sum(named, [])) == sorted(made[2::5])
    assert get(service, f"{DATASETS}?name=nobody").json() == []
    on_a = get(service, f"{DATASETS}?node={A.upper()}").json()
    assert {d["primary"] for d in on_a} == {A} and set(made[::3]) <= {d["dataset_id"] for d in on_a}
    both = get(service, f"{DATASETS}?node={A}&name=page+0/%C3%A9%26%3D").json()
    assert sorted(d["dataset_id"] for d in both) == sorted(made[::15])
    assert "X-Configuration-Tag" in get(service, f"{DATASETS}?limit=1").headers
    assert get(service, f"{DATASETS}?unknown=1").json() == everything


def test_a_page_stays_in_place(service):
    """What comes and goes elsewhere moves nothing from one page to another."""
    first = get(service, f"{DATASETS}?limit=3").json()
    last = first[-1]["dataset_id"]
    rest = [d["dataset_id"] for d in get(service, f"{DATASETS}?after={last}").json()]
    early = "00000000-0000-4000-8000-000000000001"
    create(service, dataset_id=early)
    assert [d["dataset_id"] for d in get(service, f"{DATASETS}?after={last}").json()] == rest
    assert get(service, f"{DATASETS}?limit=1").json()[0]["dataset_id"] == early


def test_pages_of_containers_and_leases(service):
    names = [f"c{i}.x-y_z" for i in range(7)]
    for i, name in enumerate(names):
        answer = service.call("POST", CONTAINERS, {"node_uuid": A if i % 2 else B, "name": name, "image": "i"})
        assert answer.status == 201
    assert [c["name"] for c in sum(pages(service, f"{CONTAINERS}?limit=3"), [])] == names
    assert [c["name"] for c in get(service, f"{CONTAINERS}?name={names[4]}").json()] == [names[4]]
    assert [c["name"] for c in get(service, f"{CONTAINERS}?node={A}&after=c2").json()] == names[3::2]
    ids = sorted(str(uuid.uuid4()) for _ in range(5))
    for one in ids:
        assert service.call("POST", LEASES, {"dataset_id": one, "node_uuid": B, "expires": None}).status == 201
    assert [k["dataset_id"] for k in sum(pages(service, f"{LEASES}?limit=2&node={B}"), [])] == ids
    assert get(service, f"{LEASES}?node={A}").json() == []


@pytest.mark.parametrize("path", [DATASETS, CONTAINERS, LEASES, "/v1/state/datasets", "/v1/state/containers", "/v1/state/nodes"])
def test_bad_pages(service, path):
    bad = ["limit=0", "limit=-1", "limit=x", "limit=", "limit=100001", "limit=1e3", "limit=%201"]
    bad += [] if path.endswith("nodes") else ["node=x", "node="]
    bad += [] if path.endswith("containers") else ["after=x"]
    for parameter in bad:
        answer = service.call("GET", f"{path}?{parameter}")
        assert answer.status == 400, (parameter, answer)
        assert answer.json()["description"].startswith(f"The parameter {parameter.split('=')[0]} must be ")


# --- compression ------------------------------------------------------------------------------------------------------


def test_gzip(service):
    while len(get(service, DATASETS).body) < 2000:
        create(service)
    plain = get(service, DATASETS)
    assert plain.headers["Content-Encoding"] is None and plain.headers["Vary"] == "Accept-Encoding"
    for wish in ("gzip", "deflate, gzip;q=0.5", "*", "GZip"):
        packed = get(service, DATASETS, [("Accept-Encoding", wish)])
        assert packed.headers["Content-Encoding"] == "gzip" and len(packed.body) < len(plain.body)
        assert int(packed.headers["Content-Length"]) == len(packed.body)
        assert gzip.decompress(packed.body) == plain.body
    for wish in ("gzip;q=0", "identity", "*;q=0", "gzip;q=0, *", "br", ""):
        assert get(service, DATASETS, [("Accept-Encoding", wish)]).body == plain.body
    assert packed.headers["ETag"] != plain.headers["ETag"]
    for tag in (packed.headers["ETag"], plain.headers["ETag"], "W/" + plain.headers["ETag"], "*"):
        for wish in ("gzip", "identity"):
            answer = service.call("GET", DATASETS, headers=[("Accept-Encoding", wish), ("If-None-Match", tag)])
            assert (answer.status, answer.body) == (304, b""), answer
    head = service.call("HEAD", DATASETS, headers=[("Accept-Encoding", "gzip")])
    assert head.headers["Content-Length"] == packed.headers["Content-Length"] and head.body == b""
    assert get(service, "/v1/version", [("Accept-Encoding", "gzip")]).headers["Content-Encoding"] is None


# --- events -----------------------------------------------------------------------------------------------------------


class Reader:
    """Of the stream of events."""

    def __init__(self, service, query="", headers=()):
        self.connection = service.connect(timeout=5)
        self.connection.request("GET", f"/v1/events{query}", headers=dict(headers))
        self.answer = self.connection.getresponse()

    def until(self, text):
        """The lines up to one with the text."""
        lines = []
        while not lines or text not in lines[-1]:
            line = self.answer.readline().decode()
            assert line, lines
            lines.append(line)
        return lines

    def close(self):
        self.connection.close()


def test_events_since(service):
    reader = Reader(service)
    first = create(service)
    seen = [line for line in reader.until(first) if line.startswith("id: ")][-1][4:].strip()
    reader.close()
    second = create(service)
    for query, headers in ((f"?since={seen}", {}), ("", {"Last-Event-ID": seen}),
                           ("?since=0000000000000001:1", {"Last-Event-ID": seen})):
        reader = Reader(service, query, headers)
        assert reader.answer.status == 200
        assert first not in "".join(reader.until(second))
        reader.close()
    instance, number = seen.split(":")
    for old, status in ((f"{int(instance, 16) ^ 1:016x}:{number}", 410), (f"{instance}:{int(number) + 10000}", 410),
                        (instance, 400), ("x:1", 400), (f"{seen}x", 400), ("", 400)):
        answer = service.call("GET", f"/v1/events?since={old}")
        assert answer.status == status, (old, answer)
    for _ in range(520):  # each is two events and more: the dataset's, and what became of it
        service.call("DELETE", f"{DATASETS}/{create(service)}?purge=true")
    answer = service.call("GET", f"/v1/events?since={seen}")
    assert answer.status == 410 and seen in answer.json()["description"], answer
    reader = Reader(service, headers={"Last-Event-ID": seen})
    reader.until("event: resync")
    reader.close()


@pytest.mark.deadline(60)
def test_heartbeat(service):
    """A stream on which nothing happens shows every 30 seconds that it is alive."""
    reader = Reader(service)
    reader.connection.sock.settimeout(35)
    began = time.monotonic()
    reader.until("still here")
    assert time.monotonic() - began < 35
    reader.close()


# --- metrics and health -----------------------------------------------------------------------------------------------


def value(text, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)[1])


def test_metrics(service):
    def changes():
        return value(get(service, "/metrics").body.decode(), 'flocker_http_requests_total{route="createDataset",code="2xx"}')
    create(service)
    before = changes()
    create(service)
    assert changes() == before + 1
    service.call("GET", "/nothing")
    service.call("POST", DATASETS, b"x")
    answer = get(service, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    for name in ('flocker_http_requests_total{route="none",code="4xx"}', 'flocker_http_requests_total{route="createDataset",code="4xx"}',
                 'flocker_http_request_duration_seconds_count{kind="change"}', "flocker_store_commit_seconds_count",
                 "process_resident_memory_bytes", "process_cpu_seconds_total", "flocker_audit_lines_total", "flocker_datasets"):
        assert value(text, name) > 0, name
    done = subprocess.run(["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done


def test_health(service):
    assert get(service, "/healthz").json() == {"status": "ok"}
    assert get(service, "/readyz").json() == {"status": "ready"}


def test_not_ready_when_the_disk_is_full(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    script = f'mount -t tmpfs -o size=4m tmpfs {data}; exec "$0" "$@"'
    service = Service(tmp_path, prefix=["unshare", "--mount", "--propagation", "private", "sh", "-ec", script])

    def shell(command):
        subprocess.run(["nsenter", "-t", str(service.process.pid), "-m", "sh", "-c", command], check=False, capture_output=True)
    try:
        create(service)
        shell(f"dd if=/dev/zero of={data}/filler bs=4096")
        for _ in range(500):  # the log has a little room at first
            answer = service.call("POST", DATASETS, {"primary": A, "metadata": {f"k{i}": "x" * 250 for i in range(10)}})
            if answer.status != 201:
                break
        assert answer.status == 503, answer
        answer = service.call("GET", "/readyz")
        assert answer.status == 503, answer
        assert re.search("could not be stored: .*full", answer.json()["description"]), answer
        assert get(service, "/healthz").json() == {"status": "ok"}
        shell(f"rm {data}/filler")
        create(service)
        assert get(service, "/readyz").status == 200
    finally:
        service.close()


# --- the audit log ----------------------------------------------------------------------------------------------------


def audit_lines(path, n):
    """The last n lines, once there are any after what was asked for."""
    return [json.loads(line) for line in path.read_text().splitlines()[-n:]]


def test_audit_log(service):
    path = service.top / "audit"
    one = create(service, B)
    service.call("POST", f"{DATASETS}/{one}", {"primary": A})
    service.call("DELETE", f"{DATASETS}/{one}?purge=true")
    service.call("POST", LEASES, b"secret {")
    service.call("POST", f"{CONTAINERS}/no%22body", {"node_uuid": A})
    service.call("GET", DATASETS)
    wait_until(lambda: 'no\\"body' in path.read_text(), "the last line is there", 5)
    lines = audit_lines(path, 5)
    assert {line["user"] for line in lines} == {"user-user"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    assert all(line["address"].startswith("127.0.0.1:") for line in lines)
    told = [(k["action"], k["method"], k["object"], k["node"], k["status"], k["query"], k["error"]) for k in lines]
    assert told[:3] == [("createDataset", "POST", one, B, 201, None, None), ("updateDataset", "POST", one, A, 200, None, None),
                        ("deleteDataset", "DELETE", one, None, 200, "purge=true", None)]
    assert told[3][:6] == ("acquireLease", "POST", None, None, 400, None) and "decoded" in told[3][6]
    assert told[4] == ("moveContainer", "POST", 'no"body', A, 404, None, "Container not found.")
    assert "secret" not in path.read_text()


def test_audit_log_says_why_a_node_was_fenced(service):
    path = service.top / "audit"
    create(service, B)
    answer = service.call("POST", f"/v1/fences/{B}", {"confirm_off": True, "reason": "it burned"})
    assert answer.status == 200 and answer.json()["fence"]["by"] == "user-user"
    wait_until(lambda: "it burned" in path.read_text(), "the line is there", 5)
    line = json.loads(next(k for k in path.read_text().splitlines() if "it burned" in k))
    assert (line["user"], line["action"], line["node"], line["status"], line["reason"]) == ("user-user", "fenceNode", B, 200, "it burned")
    assert service.call("DELETE", f"/v1/fences/{B}").status == 200
    assert '"reason"' not in path.read_text().splitlines()[0]


def test_audit_log_is_rotated(service):
    path = service.top / "audit"
    moved = path.with_suffix(".1")
    path.rename(moved)
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: create(service) and path.exists(), "it writes a new file", 5)
    before = moved.read_text()
    one = create(service)
    wait_until(lambda: one in path.read_text(), "the line is in the new file", 5)
    assert moved.read_text() == before and path.stat().st_mode & 0o777 == 0o640


def test_audit_log_on_a_full_disk(tmp_path):
    service = Service(tmp_path, "--audit-log", "/dev/full")
    try:
        create(service)
        wait_until(lambda: value(get(service, "/metrics").body.decode(), "flocker_audit_lines_lost_total") == 1, "it is counted", 5)
        assert re.search("lines of the audit log /dev/full are lost: No space left", service.log.read_text())
    finally:
        service.close()


def test_audit_log_that_cannot_be_opened(tmp_path):
    with pytest.raises(AssertionError, match="cannot open the audit log"):
        Service(tmp_path, "--audit-log", tmp_path)
