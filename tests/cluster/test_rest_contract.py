"""The REST API as its clients have known it for ten years: codes, bodies, texts, headers and the order of checks, with TLS,
from the examples and the tables of the API's description. What needs agents is in the other files."""

import re
import uuid

import pytest

from rest_service import CONTAINERS, DATASETS, LEASES, Service

A, B = "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f", "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"
NONE = "ffffffff-0000-4000-8000-000000000000"
MIB64 = 67108864
UNDECODED = "The request body could not be decoded according to the value of the\nContent-Type header."
MISMATCH = "The provided JSON doesn't match the required schema."


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory):
    made = Service(tmp_path_factory.mktemp("rest"))
    yield made
    made.close()
    assert "defect:" not in made.log.read_text()


def new_id():
    return str(uuid.uuid4())


def expect(service, method, path, body, status, answer, headers=()):
    """The answer, checked: status, type, and the whole JSON body (a text stands for an error's description)."""
    got = service.call(method, path, body, headers)
    assert got.status == status, got
    assert got.headers["Content-Type"] == "application/json"
    if isinstance(answer, str):
        answer = {"description": answer}
    if answer is not ...:
        assert got.json() == answer
    return got


def dataset(service, node=A, **more):
    return expect(service, "POST", DATASETS, {"primary": node, **more}, 201, ...).json()


def test_version(service):
    version = expect(service, "GET", "/v1/version", None, 200, ...).json()
    assert list(version) == ["flocker"] and re.fullmatch(r"\d+\.\d+\.\d+.*", version["flocker"])


# --- datasets ---------------------------------------------------------------------------------------------------------


def test_life_of_a_dataset(service):
    wanted = {"primary": A, "maximum_size": 21474836480, "metadata": {"name": "orders", "team": "shop"}}
    made = expect(service, "POST", DATASETS, wanted, 201, ...).json()
    one = made["dataset_id"]
    assert uuid.UUID(one).version == 4 and one == one.lower()
    assert made == {**wanted, "dataset_id": one, "deleted": False}
    assert made in expect(service, "GET", DATASETS, None, 200, ...).json()
    expect(service, "POST", DATASETS, {"primary": B, "dataset_id": one}, 409, "The provided dataset_id is already in use.")
    moved = {**made, "primary": B}
    for _ in range(2):  # moving to where it is, is fine
        expect(service, "POST", f"{DATASETS}/{one}", {"primary": B}, 200, moved)
    expect(service, "POST", f"{DATASETS}/{one}", {}, 200, moved)
    expect(service, "POST", f"{DATASETS}/{one.upper()}", {"primary": A}, 404, "Dataset not found.")
    gone = {**moved, "deleted": True}
    for _ in range(2):
        expect(service, "DELETE", f"{DATASETS}/{one}", b"not JSON {", 200, gone)
    refused = expect(service, "POST", f"{DATASETS}/{one}", {"primary": A}, 405, "The dataset has been deleted.")
    assert "DELETE" in refused.headers["Allow"]
    expect(service, "POST", DATASETS, {"primary": B, "dataset_id": one}, 409, "The provided dataset_id is already in use.")
    assert gone in expect(service, "GET", DATASETS, None, 200, ...).json()


@pytest.mark.parametrize("path", [NONE, "not-a-uuid", "%00x", NONE.replace("-", "")])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_unknown_dataset(service, method, path):
    if "%00" in path:
        expect(service, method, f"{DATASETS}/{path}", {}, 400, ...)
    else:
        expect(service, method, f"{DATASETS}/{path}", {}, 404, "Dataset not found.")


def test_optional_keys(service):
    one = new_id()
    made = dataset(service, dataset_id=one.upper(), maximum_size=None)
    assert made == {"dataset_id": one, "primary": A, "deleted": False, "metadata": {}}
    full = {("k%d" % i).ljust(256, "é"): "ü" * 256 for i in range(16)}
    assert dataset(service, metadata=full, maximum_size=MIB64)["metadata"] == full


CREATE_400 = {
    "no primary": {}, "primary null": {"primary": None}, "version 1": {"primary": "3f0c9c1e-7b1d-1c7a-9d0e-0a1b2c3d4e5f"},
    "variant": {"primary": "3f0c9c1e-7b1d-4c7a-7d0e-0a1b2c3d4e5f"}, "braces": {"primary": "{" + A + "}"},
    "no hyphens": {"primary": A.replace("-", "")}, "id": {"primary": A, "dataset_id": "x"},
    "id null": {"primary": A, "dataset_id": None}, "deleted": {"primary": A, "deleted": False},
    "small": {"primary": A, "maximum_size": MIB64 - 1024}, "odd": {"primary": A, "maximum_size": MIB64 + 1},
    "real": {"primary": A, "maximum_size": float(MIB64)}, "true": {"primary": A, "maximum_size": True},
    "text": {"primary": A, "maximum_size": str(MIB64)}, "17 keys": {"primary": A, "metadata": {str(i): "" for i in range(17)}},
    "empty key": {"primary": A, "metadata": {"": "x"}}, "long key": {"primary": A, "metadata": {"k" * 257: ""}},
    "long value": {"primary": A, "metadata": {"k": "v" * 257}}, "number": {"primary": A, "metadata": {"k": 1}},
    "line break": {"primary": A, "metadata": {"a\nb": "x"}}, "metadata null": {"primary": A, "metadata": None},
    "unknown": {"primary": A, "name": "x"}, "a list": [], "a text": "x", "null": None,
}


@pytest.mark.parametrize("name", CREATE_400)
def test_create_schema(service, name):
    body = b"null" if name == "null" else CREATE_400[name]
    got = expect(service, "POST", DATASETS, body, 400, ...).json()
    assert got["description"] == MISMATCH and got["errors"] and all(isinstance(e, str) for e in got["errors"])
    assert set(got) == {"description", "errors"}


def test_each_violation_is_told(service):
    got = expect(service, "POST", DATASETS, {"maximum_size": 1000, "metadata": 1, "x": 1}, 400, ...).json()
    assert len(got["errors"]) == 4, got


@pytest.mark.parametrize("path", [DATASETS, f"{DATASETS}/{NONE}", CONTAINERS, f"{CONTAINERS}/nobody", LEASES])
@pytest.mark.parametrize("body", [b"", b"{", b"primary=1", b"\xff", b'{"a": 1, "a": 2}'])
def test_not_json(service, path, body):
    assert expect(service, "POST", path, body, 400, ...).json()["description"] == UNDECODED


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"])
def test_content_type_does_not_matter(service, kind):
    headers = [("Content-Type", kind)] if kind else []
    expect(service, "POST", DATASETS, {"primary": A}, 201, ..., headers)


UPDATE_400 = [{"primary": "x"}, {"primary": None}, {"dataset_id": A}, {"deleted": True}, {"metadata": None}, {"metadata": {"a": 1}},
              {"maximum_size": MIB64 + 1}, {"maximum_size": "1"}, {"maximum_size": 1.5}, [], {"x": 1}]


@pytest.mark.parametrize("body", UPDATE_400)
def test_update_schema(service, body):
    assert expect(service, "POST", f"{DATASETS}/{NONE}", body, 400, ...).json()["description"] == MISMATCH


# --- conditions -------------------------------------------------------------------------------------------------------

CONDITION = "X-If-Configuration-Matches"


def tag_of(service):
    return service.call("GET", DATASETS).headers["X-Configuration-Tag"]


def test_conditions(service):
    one = dataset(service)["dataset_id"]
    stale = tag_of(service)
    dataset(service)
    fresh = tag_of(service)
    refusal = f"Tag doesn't match. Required: {stale}, current: {fresh}"
    assert stale != fresh
    for method, path in (("POST", DATASETS), ("POST", f"{DATASETS}/{one}"), ("DELETE", f"{DATASETS}/{one}"),
                         ("POST", f"{DATASETS}/{NONE}"), ("DELETE", f"{DATASETS}/x")):
        expect(service, method, path, b"not JSON", 412, refusal, [(CONDITION, stale)])
    assert tag_of(service) == fresh
    for form in (f'"{fresh}"', f"{fresh}, {fresh}", "*", fresh.upper() + "x", ""):
        expect(service, "DELETE", f"{DATASETS}/{one}", None, 412, ..., [(CONDITION, form)])
    expect(service, "POST", f"{DATASETS}/{one}", {"primary": B}, 200, ..., [(CONDITION, stale), (CONDITION, fresh)])
    assert tag_of(service) != fresh


def test_tag_changes_with_everything_and_survives_a_restart(service):
    seen = {tag_of(service)}
    one = dataset(service)["dataset_id"]
    steps = [("POST", CONTAINERS, {"node_uuid": A, "name": "tagged", "image": "i"}, 201),
             ("POST", LEASES, {"dataset_id": one, "node_uuid": A, "expires": None}, 201),
             ("DELETE", f"{LEASES}/{one}", None, 200), ("DELETE", f"{CONTAINERS}/tagged", None, 200)]
    for step in steps:
        seen.add(tag_of(service))
        expect(service, *step, ..., [(CONDITION, "others ignore the header")] if "datasets" not in step[1] else [])
    seen.add(tag_of(service))
    assert len(seen) == 6
    last = tag_of(service)
    service.stop()
    service.start()
    assert tag_of(service) == last
    expect(service, "POST", f"{DATASETS}/{one}", {}, 200, ..., [(CONDITION, last)])
    assert tag_of(service) == last


# --- containers -------------------------------------------------------------------------------------------------------


def container(service, name, status=201, answer=..., **more):
    body = {"node_uuid": A, "name": name, "image": "nginx", **more}
    got = expect(service, "POST", CONTAINERS, body, status, answer)
    return got.json()


def test_life_of_a_container(service):
    one = dataset(service)["dataset_id"]
    wanted = {"node_uuid": A, "name": "shop-db", "image": "postgres:9.4", "ports": [{"internal": 5432, "external": 5432}],
              "volumes": [{"dataset_id": one, "mountpoint": "/var/lib/postgresql/data"}],
              "environment": {"POSTGRES_USER": "shop"},
              "links": [{"alias": "cache", "local_port": 6379, "remote_port": 16379}],
              "cpu_shares": 256, "memory_limit": 536870912, "command_line": ["postgres", "-D", "/data"],
              "restart_policy": {"name": "never"}}
    expect(service, "POST", CONTAINERS, wanted, 201, wanted)
    assert wanted in expect(service, "GET", CONTAINERS, None, 200, ...).json()
    container(service, "shop-db", 409, "The container name already exists.")
    expect(service, "POST", f"{DATASETS}/{one}", {"primary": B}, 409,
           "The dataset is used by the container shop-db; move the container instead.")
    moved = {**wanted, "node_uuid": B}
    for _ in range(2):
        expect(service, "POST", f"{CONTAINERS}/shop-db", {"node_uuid": B}, 200, moved)
    assert expect(service, "POST", f"{DATASETS}/{one}", {}, 200, ...).json()["primary"] == B  # it went along
    expect(service, "DELETE", f"{CONTAINERS}/shop-db", None, 200, None)
    for method, body in (("DELETE", None), ("POST", {"node_uuid": A})):
        expect(service, method, f"{CONTAINERS}/shop-db", body, 404, "Container not found.")
    assert not expect(service, "POST", f"{DATASETS}/{one}", {}, 200, ...).json()["deleted"]


@pytest.mark.parametrize(("given", "shown"), [
    ({"image": "nginx"}, {"image": "nginx:latest"}), ({"image": "h:5000/a/b"}, {"image": "h:5000/a/b:latest"}),
    ({"image": "a/b:1"}, {"image": "a/b:1"}), ({"volumes": []}, {}), ({"environment": {}}, {}),
    ({"swappiness": 10}, {}), ({"restart_policy": {"name": "always"}}, {"restart_policy": {"name": "always"}}),
    ({"restart_policy": {"name": "on-failure", "maximum_retry_count": 5}},) * 2,
    ({"restart_policy": {"name": "on-failure"}},) * 2,
    ({"ports": [{"internal": 9, "external": 10009}, {"internal": 8, "external": 10010}]},
     {"ports": [{"internal": 8, "external": 10010}, {"internal": 9, "external": 10009}]}),
    ({"links": [{"alias": "Zed", "local_port": 1, "remote_port": 2}, {"alias": "abe", "local_port": 2, "remote_port": 2}]},
     {"links": [{"alias": "abe", "local_port": 2, "remote_port": 2}, {"alias": "zed", "local_port": 1, "remote_port": 2}]}),
    ({"command_line": []}, {"command_line": []}), ({"command_line": ["x" * 4096] * 3},) * 2])
def test_canonical_form(service, given, shown):
    name = "n" + new_id()
    made = container(service, name, **given)
    assert made == {"node_uuid": A, "name": name, "image": "nginx:latest", "restart_policy": {"name": "never"}, **shown}
    expect(service, "DELETE", f"{CONTAINERS}/{name}", None, 200, None)


CONTAINER_400 = {
    "short name": {"name": "a"}, "name": {"name": "-ab"}, "name slash": {"name": "a/b"}, "no image": {"image": ""},
    "no ports": {"ports": []}, "no links": {"links": []}, "port missing": {"ports": [{"internal": 1}]},
    "port twice": {"ports": [{"internal": 1, "external": 2}] * 2}, "port key": {"ports": [{"internal": 1, "external": 2, "x": 1}]},
    "link alias": {"links": [{"alias": "a-b", "local_port": 1, "remote_port": 1}]},
    "link port": {"links": [{"alias": "a", "local_port": 0, "remote_port": 1}]},
    "link missing": {"links": [{"alias": "a", "local_port": 1}]},
    "link twice": {"links": [{"alias": "a", "local_port": 1, "remote_port": 1}] * 2},
    "memory": {"memory_limit": 1048575}, "cpu 0": {"cpu_shares": 0}, "cpu": {"cpu_shares": 1025}, "swap": {"swappiness": 101},
    "policy": {"restart_policy": {"name": "sometimes"}}, "policy count": {"restart_policy": {"name": "always", "maximum_retry_count": 1}},
    "policy 0": {"restart_policy": {"name": "on-failure", "maximum_retry_count": 0}}, "policy empty": {"restart_policy": {}},
    "a dataset twice": {"volumes": [{"dataset_id": A, "mountpoint": "/a"}, {"dataset_id": A, "mountpoint": "/b"}]},
    "a mountpoint twice": {"volumes": [{"dataset_id": A, "mountpoint": "/a"}, {"dataset_id": B, "mountpoint": "/a/"}]},
    "mountpoint": {"volumes": [{"dataset_id": A, "mountpoint": "a"}]}, "volume key": {"volumes": [{"dataset_id": A}]},
    "long word": {"command_line": ["x" * 4097]}, "many words": {"command_line": ["x"] * 4097}, "word": {"command_line": [1]},
    "environment": {"environment": {"A": None}}, "environment key": {"environment": {"": "x"}},
    "running": {"running": True}, "node": {"node_uuid": "x"},
}


@pytest.mark.parametrize("name", CONTAINER_400)
def test_container_schema(service, name):
    assert container(service, **{"name": "good", **CONTAINER_400[name]}, status=400)["description"] == MISMATCH


def test_order_of_container_checks(service):
    """Each request breaks a rule and all rules after it; the first one is told."""
    here, there, used = (dataset(service, n)["dataset_id"] for n in (A, B, A))
    container(service, "order", ports=[{"internal": 1, "external": 20001}], volumes=[{"dataset_id": used, "mountpoint": "/d"}])
    bad_links = [{"alias": "x", "local_port": 1, "remote_port": 1}, {"alias": "x", "local_port": 1, "remote_port": 2}]
    port = [{"internal": 2, "external": 20001}]

    def volume(which):
        return [{"dataset_id": which, "mountpoint": "/d"}]
    both = {"ports": port, "links": bad_links}
    container(service, "order", 400, ..., volumes=volume(NONE), **both, cpu_shares=0)
    container(service, "order", 409, "The container name already exists.", volumes=volume(NONE), **both)
    container(service, "other", 404, "Dataset not found.", volumes=volume(NONE), **both)
    container(service, "other", 409, "The dataset is on another node.", volumes=volume(there), **both)
    container(service, "other", 409, "The dataset is being used by another container.", volumes=volume(used), **both)
    container(service, "other", 409, "A specified external port is already in use.", volumes=volume(here), **both)
    container(service, "other", 409, "Link aliases must be unique.", volumes=volume(here), links=bad_links)
    expect(service, "DELETE", f"{DATASETS}/{here}", None, 200, ...)
    container(service, "other", 404, "Dataset not found.", volumes=volume(here), **both)
    expect(service, "DELETE", f"{CONTAINERS}/order", None, 200, None)


def links(*pairs):
    return [{"alias": alias, "local_port": port, "remote_port": 1} for alias, port in pairs]


@pytest.mark.parametrize(("given", "told"), [
    (links(("a", 1), ("b", 1), ("a", 2)), "The local ports in a container's links must be unique."),
    (links(("b", 1), ("b", 2), ("a", 1)), "Link aliases must be unique."),
    (links(("z", 5), ("a", 5)), "The local ports in a container's links must be unique."),
    (links(("Db", 1), ("db", 2)), None)])
def test_links_are_checked_in_order(service, given, told):
    """Each link in turn, its alias first; the case of aliases counts, though they are shown in lower case."""
    if told:
        container(service, "linked", 409, told, links=given)
    else:
        assert [k["alias"] for k in container(service, "linked", links=given)["links"]] == ["db", "db"]
        expect(service, "DELETE", f"{CONTAINERS}/linked", None, 200, None)


def test_two_external_ports_within_one_request(service):
    """Not checked, as ever; and port 0, "any", belongs to nobody."""
    same = [{"internal": 1, "external": 30001}, {"internal": 2, "external": 30001}]
    container(service, "ports1", ports=same)
    for name in ("ports2", "ports3"):
        container(service, name, ports=[{"internal": 1, "external": 0}])
    for name in ("ports1", "ports2", "ports3"):
        expect(service, "DELETE", f"{CONTAINERS}/{name}", None, 200, None)


# --- leases -----------------------------------------------------------------------------------------------------------


def lease(service, one, node, expires, status, answer=...):
    return expect(service, "POST", LEASES, {"dataset_id": one, "node_uuid": node, "expires": expires}, status, answer).json()


def test_life_of_a_lease(service):
    one = new_id()  # neither dataset nor node need be known
    assert lease(service, one, A, 60, 201) == {"dataset_id": one, "node_uuid": A, "expires": 60.0}
    lease(service, one, B, None, 409, "Lease already held.")
    for expires in (None, 30, None):  # renewed: what was there is replaced
        assert lease(service, one, A, expires, 200)["expires"] == expires
        shown = [k for k in expect(service, "GET", LEASES, None, 200, ...).json() if k["dataset_id"] == one]
        assert len(shown) == 1 and shown[0]["node_uuid"] == A
        assert shown[0]["expires"] is None if expires is None else 20 < shown[0]["expires"] <= 30
    expect(service, "DELETE", f"{LEASES}/{one}", None, 200, {"dataset_id": one, "node_uuid": A, "expires": None})
    expect(service, "DELETE", f"{LEASES}/{one}", None, 404, "Lease not found.")
    lease(service, one, B, 12.5, 201)
    assert 5 < expect(service, "DELETE", f"{LEASES}/{one.upper()}", None, 200, ...).json()["expires"] <= 12.5


@pytest.mark.parametrize("expires", [0, -1, -1e300, 0.2])
def test_short_leases_are_swept(service, expires):
    one = new_id()
    lease(service, one, A, expires, 201)
    from lab import wait_until
    wait_until(lambda: one not in str(service.call("GET", LEASES).json()), "it is swept", 5)
    lease(service, one, B, None, 201)
    expect(service, "DELETE", f"{LEASES}/{one}", None, 200, ...)


def test_a_lease_for_ever(service):
    one = new_id()
    assert lease(service, one, A, 1e300, 201)["expires"] > 1e12
    expect(service, "DELETE", f"{LEASES}/{one}", None, 200, ...)


@pytest.mark.parametrize("body", [
    {}, {"dataset_id": NONE, "node_uuid": A}, {"dataset_id": NONE, "node_uuid": A, "expires": "1"},
    {"dataset_id": NONE, "node_uuid": A, "expires": True}, {"dataset_id": "x" * 36, "node_uuid": A, "expires": 1},
    {"dataset_id": "00000000-0000-0000-0000-000000000000", "node_uuid": A, "expires": 1},  # no store can hold it
    {"dataset_id": NONE, "node_uuid": "x", "expires": 1}, {"dataset_id": NONE, "node_uuid": A, "expires": 1, "x": 1}])
def test_lease_schema(service, body):
    assert expect(service, "POST", LEASES, body, 400, ...).json()["description"] == MISMATCH


def test_malformed_ids_are_the_clients_fault(service):
    """Where the original broke with 500."""
    for method, path in (("DELETE", f"{LEASES}/x"), ("GET", "/v1/state/nodes/by_era/x")):
        expect(service, method, path, None, 400, "The path ends with 'x', which is not a UUID.")
    expect(service, "GET", f"/v1/state/nodes/by_era/{NONE}", None, 404, "No node found with given era.")


# --- in general -------------------------------------------------------------------------------------------------------

READS = [DATASETS, CONTAINERS, LEASES, "/v1/version", "/v1/state/datasets", "/v1/state/containers", "/v1/state/nodes"]


@pytest.mark.parametrize("path", READS)
def test_head_is_get_without_body(service, path):
    get, head = service.call("GET", path), service.call("HEAD", path)
    assert (get.status, head.status, head.body) == (200, 200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "X-Configuration-Tag"):
        assert get.headers[name] == head.headers[name]


@pytest.mark.parametrize("path", [p for p in READS if "state" in p])
def test_nothing_is_there_without_agents(service, path):
    expect(service, "GET", path, b"whatever {", 200, [])


@pytest.mark.parametrize(("path", "allowed"), [
    (DATASETS, "GET, HEAD, POST"), (f"{DATASETS}/{NONE}", "POST, DELETE"), (CONTAINERS, "GET, HEAD, POST"),
    (f"{CONTAINERS}/x", "POST, DELETE"), (LEASES, "GET, HEAD, POST"), (f"{LEASES}/{NONE}", "DELETE"),
    ("/v1/version", "GET, HEAD"), ("/v1/state/nodes", "GET, HEAD"), (f"/v1/state/nodes/by_era/{NONE}", "GET, HEAD")])
def test_other_methods(service, path, allowed):
    for method in {"GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE"} - set(allowed.split(", ")):
        got = expect(service, method, path, None, 405, f"The method {method} is not allowed here; {allowed} is.")
        assert got.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v2/version", "/v1/version/", f"{DATASETS}/", f"{DATASETS}/a/b", "/v1/state"])
def test_unknown_paths(service, path):
    expect(service, "GET", path, None, 404, "There is nothing at this path.")


def test_trace_header_is_ignored(service):
    for value in (f"{NONE}@/1", "nonsense", ""):
        expect(service, "GET", "/v1/version", None, 200, ..., [("X-Eliot-Task-Id", value)])
