"""What comes from outside may be anything: bodies, connections, certificates, files, disks. Each is answered with a
sentence, nothing is lost, and the others are served on."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
import uuid

import pytest

from cli_programs import bin_dir, ok
from lab import connect_in, holds, wait_until

CLUSTER = {"nodes": 2}
DATASETS = "/v1/configuration/datasets"
CONTAINERS = "/v1/configuration/containers"
LEASES = "/v1/configuration/leases"
API_PORT, AGENT_PORT = 4523, 4524
POOL = "/var/lib/flocker/btrfs-pool/flocker"


@pytest.fixture(name="dataset", scope="module")
def _dataset(cluster):
    """One dataset on h1, leased, with something in it; the tests leave it alone."""
    made = cluster.api.create_dataset(cluster.node("h1"), metadata={"of": "test"})
    cluster.wait_mounted(made, "h1")
    cluster.api.acquire_lease(made, cluster.node("h1"))
    cluster.shell("h1", f"echo precious >/flocker/{made}/file; sync")
    return made


def configuration(cluster):
    return [cluster.api.expect("GET", path) for path in (DATASETS, CONTAINERS, LEASES)]


@contextlib.contextmanager
def unchanged(cluster):
    """The configuration is the same afterwards, and the same process serves it."""
    before, pid = configuration(cluster), cluster.shell("control", "cat /run/lab-control.pid")
    yield
    assert configuration(cluster) == before
    cluster.shell("control", f"test $(cat /run/lab-control.pid) = {pid.strip()}; kill -0 {pid}")


# --- bodies of the REST API -------------------------------------------------------------------------------------------

NODE = "8c2b7e0d-4a61-4f3b-9c88-13579bdf2468"
NO_JSON = "could not be decoded"
NO_MATCH = "doesn't match the required schema"


def dataset_body(**changes):
    return json.dumps({"primary": NODE, **changes}).encode()


def container_body(**changes):
    return json.dumps({"node_uuid": NODE, "name": "bad", "image": "busybox", **changes}).encode()


def lease_body(**changes):
    return json.dumps({"dataset_id": NODE, "node_uuid": NODE, "expires": None, **changes}).encode()


# The path, the body, the sentence, and what the list of errors names.
BODIES = {
    "empty": (DATASETS, b"", NO_JSON, "JSON"),
    "not JSON": (DATASETS, b"primary=me", NO_JSON, "line 1"),
    "JSON and more": (DATASETS, dataset_body() + b"x", NO_JSON, "line 1"),
    "cut off": (DATASETS, dataset_body()[:-1], NO_JSON, "line 1"),
    "NUL": (DATASETS, dataset_body() + b"\0", NO_JSON, "NUL"),
    "not UTF-8": (DATASETS, b'{"primary": "\xff\xfe"}', NO_JSON, "decode byte 0x"),
    "not UTF-8 in a key": (DATASETS, b'{"\xc0\xaf": 1}', NO_JSON, "decode byte 0x"),
    "overlong UTF-8": (DATASETS, b'{"metadata": {"a": "\xe0\x80\xaf"}}', NO_JSON, "decode byte 0x"),
    "half a surrogate": (DATASETS, b'{"primary": "\\ud800"}', NO_JSON, "line 1"),
    "escaped NUL": (DATASETS, b'{"metadata": {"a": "\\u0000"}}', NO_JSON, "\\u0000"),
    "deep list": (DATASETS, b"[" * 100000, NO_JSON, "deeper"),
    "deep object": (CONTAINERS, b'{"a":' * 100000 + b"1" + b"}" * 100000, NO_JSON, "deeper"),
    "same key twice": (DATASETS, b'{"primary": "%s", "primary": "%s"}' % ((NODE.encode(),) * 2), NO_JSON, "primary"),
    "real too large": (LEASES, lease_body().replace(b"null", b"1e999"), NO_JSON, "overflow"),
    "integer too large": (DATASETS, dataset_body(maximum_size=10 ** 400), NO_JSON, "big"),
    "a list": (DATASETS, b"[]", NO_MATCH, "object"),
    "a number": (LEASES, b"7", NO_MATCH, "object"),
    "null": (CONTAINERS, b"null", NO_MATCH, "object"),
    "no primary": (DATASETS, b"{}", NO_MATCH, "primary"),
    "unknown key": (DATASETS, dataset_body(primry=NODE), NO_MATCH, "primry"),
    "long key": (DATASETS, dataset_body(**{"k" * 100000: 1}), NO_MATCH, "kkk"),
    "many keys": (DATASETS, dataset_body(**{f"k{i}": 1 for i in range(20000)}), NO_MATCH, "k"),
    "primary a number": (DATASETS, dataset_body(primary=5), NO_MATCH, "primary"),
    "primary null": (DATASETS, dataset_body(primary=None), NO_MATCH, "primary"),
    "primary no uuid": (DATASETS, dataset_body(primary="me"), NO_MATCH, "primary"),
    "id no uuid": (DATASETS, dataset_body(dataset_id="../../etc"), NO_MATCH, "dataset_id"),
    "size a text": (DATASETS, dataset_body(maximum_size="1GiB"), NO_MATCH, "maximum_size"),
    "size negative": (DATASETS, dataset_body(maximum_size=-67108864), NO_MATCH, "maximum_size"),
    "size a real": (DATASETS, dataset_body(maximum_size=67108864.5), NO_MATCH, "maximum_size"),
    "size odd": (DATASETS, dataset_body(maximum_size=2 ** 63 - 1), NO_MATCH, "maximum_size"),
    "metadata a list": (DATASETS, dataset_body(metadata=[1]), NO_MATCH, "metadata"),
    "metadata nested": (DATASETS, dataset_body(metadata={"a": {"b": "c"}}), NO_MATCH, "metadata"),
    "metadata long": (DATASETS, dataset_body(metadata={"a": "b" * 1000}), NO_MATCH, "metadata"),
    "metadata many": (DATASETS, dataset_body(metadata={f"k{i}": "v" for i in range(1000)}), NO_MATCH, "metadata"),
    "move: a list": (DATASETS + "/{id}", b"[]", NO_MATCH, "object"),
    "move: no JSON": (DATASETS + "/{id}", b"{", NO_JSON, "line 1"),
    "move: wrong type": (DATASETS + "/{id}", b'{"primary": true}', NO_MATCH, "primary"),
    "move: unknown key": (DATASETS + "/{id}", dataset_body(deleted=False), NO_MATCH, "deleted"),
    "container: missing": (CONTAINERS, b"{}", NO_MATCH, "image"),
    "container: unknown": (CONTAINERS, container_body(privileged=True), NO_MATCH, "privileged"),
    "container: name": (CONTAINERS, container_body(name="../x"), NO_MATCH, "name"),
    "container: name long": (CONTAINERS, container_body(name="x" * 10000), NO_MATCH, "name"),
    "container: port": (CONTAINERS, container_body(ports=[{"internal": 80, "external": 65536}]), NO_MATCH, "ports[0]"),
    "container: port a text": (CONTAINERS, container_body(ports=[{"internal": "80", "external": 1}]), NO_MATCH,
                               "ports[0].internal"),
    "container: environment": (CONTAINERS, container_body(environment={"A": 1}), NO_MATCH, "environment"),
    "container: volumes": (CONTAINERS, container_body(volumes=[{"dataset_id": NODE}]), NO_MATCH, "mountpoint"),
    "container: mountpoint": (CONTAINERS, container_body(volumes=[{"dataset_id": NODE, "mountpoint": "data"}]),
                              NO_MATCH, "mountpoint"),
    "container: policy": (CONTAINERS, container_body(restart_policy={"name": "sometimes"}), NO_MATCH,
                          "restart_policy"),
    "container: memory": (CONTAINERS, container_body(memory_limit=-1), NO_MATCH, "memory_limit"),
    "container: swappiness": (CONTAINERS, container_body(swappiness=101), NO_MATCH, "swappiness"),
    "lease: missing": (LEASES, b"{}", NO_MATCH, "expires"),
    "lease: wrong type": (LEASES, lease_body(expires="never"), NO_MATCH, "expires"),
    "lease: unknown key": (LEASES, lease_body(force=True), NO_MATCH, "force"),
}


def test_bodies(cluster, dataset):
    """All on one connection: none of these may cost it."""
    connection = cluster.api.session(timeout=10)
    wrong = []
    with unchanged(cluster):
        for name, (path, body, description, named) in BODIES.items():
            connection.request("POST", path.replace("{id}", dataset), body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status != 400 or description not in told["description"] or \
                    not any(named in e for e in told["errors"]) or len(json.dumps(told)) > 20000:
                wrong.append((name, answer.status, json.dumps(told)[:500]))
        assert not wrong
    connection.close()


@pytest.mark.parametrize(("method", "path", "statuses"), [
    ("POST", DATASETS + "/not-a-uuid", (400, 404)), ("DELETE", DATASETS + "/" + NODE, (404,)),
    ("DELETE", LEASES + "/" + NODE, (404,)), ("DELETE", LEASES + "/%00", (400, 404)),
    ("DELETE", CONTAINERS + "/%ff%fe", (400, 404)), ("GET", "/v1/../etc/passwd", (404,)), ("GET", "/v1/%zz", (400,)),
    ("PUT", DATASETS, (405,)), ("BREW", DATASETS, (501,)), ("GET", "/" + "a" * 30000, (414, 431))])
def test_paths(cluster, dataset, method, path, statuses):
    with unchanged(cluster):
        answer = cluster.api.call(method, path, dataset_body() if method != "GET" else None)
        assert answer.status in statuses, answer.body
        assert answer.json()["description"]


def answer_to(cluster, head, body=b""):
    """What the REST service says to these bytes, sent whatever it says, until it closes."""
    s = wrapped(cluster, cluster.api.tls, API_PORT)
    with s:
        with contextlib.suppress(OSError):
            s.sendall(head + body)
        received = b""
        with contextlib.suppress(OSError):
            while more := s.recv(65536):
                received += more
    return received


HEAD = f"POST {DATASETS} HTTP/1.1\r\nHost: a\r\n".encode()
SIZE = 4 << 20


@pytest.mark.parametrize(("head", "body", "status"), [
    pytest.param(HEAD + b"Content-Length: %d\r\n\r\n" % (SIZE + 1), b"", 413, id="too long, told"),
    pytest.param(HEAD + b"Content-Length: %d\r\n\r\n" % (SIZE * 2), b" " * SIZE * 2, 413, id="too long, sent"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + b" " * 0x100000 + b"\r\n", 413,
                 id="too long, in chunks"),
    pytest.param(HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", b"", (400, 413), id="length of 23 digits"),
    pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", b"", 400, id="negative length"),
    pytest.param(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", b"{}", 400, id="two lengths"),
    pytest.param(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", b"{}", 400, id="length and chunks"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n{}\r\n", 400, id="bad chunk"),
    pytest.param(b"\x16\x03\x01garbage\r\n\r\n", b"", 400, id="garbage"),
    pytest.param(HEAD + b"A: " + b"a" * 20000 + b"\r\n\r\n", b"", 431, id="long header"),
])
def test_requests(cluster, dataset, head, body, status):
    if b"chunked" in head and status == 413:
        body *= 5
    with unchanged(cluster):
        answer = answer_to(cluster, head, body)
        said = re.match(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n(.*)", answer, re.S)
        assert said, answer[:200]
        assert int(said[1]) in ((status,) if isinstance(status, int) else status), answer
        assert json.loads(said[2])["description"]


# --- connections ------------------------------------------------------------------------------------------------------


def plain(cluster, port, timeout=10):
    return connect_in(cluster.api.pid, (cluster.api.address, port), timeout)


def wrapped(cluster, context, port, timeout=10):
    return context.wrap_socket(plain(cluster, port, timeout), server_hostname=cluster.api.address)


def hello_bytes(context):
    """The first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="a")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_bad_clients_delay_nobody(cluster, dataset):
    """Silence in the middle of a handshake, before and after it; slow ones; garbage on both ports."""
    hello = hello_bytes(cluster.api.tls)
    request = HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    with contextlib.ExitStack() as stack:
        for port in (API_PORT, AGENT_PORT):
            for i in range(10):
                stack.enter_context(plain(cluster, port))
                stack.enter_context(plain(cluster, port)).sendall(hello[:len(hello) // 2])
                stack.enter_context(plain(cluster, port)).sendall(hello)  # and does not read on
                with contextlib.suppress(OSError):  # it may well be closed in the middle
                    stack.enter_context(plain(cluster, port)).sendall(os.urandom(100) * (i * 100))
        slow = [stack.enter_context(wrapped(cluster, cluster.api.tls, API_PORT)) for _ in range(5)]
        for _ in range(5):
            stack.enter_context(wrapped(cluster, cluster.api.tls, API_PORT)).sendall(HEAD)

        def drip():
            for i in range(len(request)):
                for s in slow:
                    s.sendall(request[i:i + 1])
                time.sleep(3 / len(request))
        dripping = threading.Thread(target=drip)
        dripping.start()
        longest = 0
        while dripping.is_alive():
            began = time.monotonic()
            made = cluster.api.create_dataset(cluster.node("h2"))
            cluster.api.delete_dataset(made)
            assert {n["uuid"] for n in cluster.api.nodes()} == {cluster.node("h1"), cluster.node("h2")}
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.05)
        dripping.join()
        assert longest < 2, longest
        for s in slow:
            answer = b""
            while more := s.recv(65536):
                answer += more
            assert answer.startswith(b"HTTP/1.1 400 ") and b'"primary\\" is required' in answer, answer
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/file") == "precious\n"


@pytest.mark.parametrize("port", [API_PORT, AGENT_PORT])
def test_plain_http(cluster, port):
    """Ended at once, not held until some time is over; on the REST port with a sentence."""
    with plain(cluster, port) as s:
        s.sendall(b"GET /v1/state/nodes HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := s.recv(65536):
                answer += more
    if port == API_PORT and answer.startswith(b"HTTP"):
        assert answer.startswith(b"HTTP/1.1 400 ") and b"description" in answer and b"HTTPS" in answer, answer
    assert b"200" not in answer


@pytest.fixture(name="strangers", scope="module")
def _strangers(tmp_path_factory):
    """Certificates of an authority that is not the cluster's."""
    top = tmp_path_factory.mktemp("strangers")
    ok("flocker-ca", "initialize", "--key-type", "ec", "strangers", cwd=top)
    ok("flocker-ca", "create-api-certificate", "--key-type", "ec", "user", cwd=top)
    ok("flocker-ca", "create-control-certificate", "--key-type", "ec", "127.0.0.1", cwd=top)
    before = set(os.listdir(top))
    ok("flocker-ca", "create-node-certificate", "--key-type", "ec", cwd=top)
    for name in set(os.listdir(top)) - before:
        os.rename(top / name, top / ("node" + os.path.splitext(name)[1]))
    for suffix in (".crt", ".key"):
        os.rename(top / f"control-127.0.0.1{suffix}", top / f"control-service{suffix}")
    return top


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize(("port", "who"), [
    (API_PORT, None), (API_PORT, "node"), (API_PORT, "control"), (API_PORT, "stranger"),
    (AGENT_PORT, None), (AGENT_PORT, "user"), (AGENT_PORT, "control"), (AGENT_PORT, "stranger")])
def test_wrong_certificate(cluster, strangers, port, who, version):
    files = {"node": cluster.path("h1", "etc", "node"), "user": cluster.path("client", "user"),
             "control": cluster.path("control", "etc", "control-service"),
             "stranger": strangers / ("user" if port == API_PORT else "node")}
    right = "user" if port == API_PORT else "node"

    def attempt(name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # whom the server lets in is the question here, not who it is
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        context.set_alpn_protocols(["http/1.1"] if port == API_PORT else ["h2"])
        if name:
            context.load_cert_chain(f"{files[name]}.crt", f"{files[name]}.key")
        with wrapped(cluster, context, port) as s:
            with contextlib.suppress(OSError):  # it may be over already; why, is said when one reads
                s.sendall(b"GET /v1/version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" if port == API_PORT
                          else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
            return s.recv(100)
    assert attempt(right)
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as e:
        pytest.fail(f"it was answered: {attempt(who)}")
    assert isinstance(e.value, ssl.SSLError) and "ALERT" in str(e.value).upper(), e.value


# --- programs that are started with bad things ------------------------------------------------------------------------


@pytest.fixture(name="place")
def _place(tmp_path, strangers):
    """A folder with good certificates of an authority of its own, for programs on this machine's loopback."""
    etc = tmp_path / "etc"
    shutil.copytree(strangers, etc)
    (etc / "agent.yml").write_text(json.dumps(agent_yml()))
    return tmp_path


def agent_yml(**changes):
    return {"version": 1, "control-service": {"hostname": "127.0.0.1", "port": 1}, "dataset": {"backend": "btrfs"},
            **changes}


def fails(*argv, prefix=()):
    """Runs a program that must end with status 1 and one line of error; that line."""
    done = subprocess.run([*prefix, str(bin_dir() / argv[0]), *map(str, argv[1:])], capture_output=True, text=True,
                          timeout=20, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (1, ""), done
    errors = [line for line in done.stderr.splitlines() if " info " not in line]
    assert len(errors) == 1 and " error " in errors[0], done.stderr
    return errors[0]


def agent_fails(place):
    return fails("flocker-agent", "-c", place / "etc" / "agent.yml", "--state-dir", place / "state")


@pytest.mark.parametrize(("text", "named"), [
    (None, "agent.yml: No such file"), ("", "mapping"), ("a: [b", "line"), ("\t- %$", "line"),
    (b"\xff\xfe\x00", "agent.yml"), ("- 1\n", "mapping"), (agent_yml(colour="red"), "'colour'"),
    ({"version": 1}, "'control-service'"), (agent_yml(version=2), "'version'"),
    (agent_yml(version="1"), "'version'"), (agent_yml(**{"control-service": {}}), "'hostname'"),
    (agent_yml(**{"control-service": {"hostname": "a b"}}), "'hostname'"),
    (agent_yml(**{"control-service": {"hostname": "a", "port": 65536}}), "'port'"),
    (agent_yml(**{"control-service": {"hostname": "a", "pport": 1}}), "'pport'"),
    (agent_yml(dataset={}), "'backend'"), (agent_yml(dataset=7), "'dataset'"),
    (agent_yml(dataset={"backend": "tape"}), "'tape'"), (agent_yml(dataset={"backend": "btrfs", "pol": "/a"}), "pol"),
    (agent_yml(dataset={"backend": "btrfs", "pool": ""}), "pool"),
    (agent_yml(dataset={"backend": "btrfs", "pool": 7}), "pool"),
    (agent_yml(dataset={"backend": "btrfs", "pool_size": "big"}), "pool_size"),
    (agent_yml(docker={"socket": "relative"}), "'socket'"), ("a: &a [*a]\n", "agent.yml"),
    ("x: 1\nx: 2\n", "the same key twice"),
    (json.dumps(agent_yml()) + "\n---\n{}\n", "second document"), ("a" * (2 << 20), "agent.yml"),
    ("[" * 100000, "nested too deeply")],
    ids=lambda v: re.sub(r"\W+", "-", str(v))[-40:])
def test_agent_configuration(place, text, named):
    path = place / "etc" / "agent.yml"
    if text is None:
        path.unlink()
    elif isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    line = agent_fails(place)
    assert named in line and "agent.yml" in line or "Configuration error" in line and named in line, line
    assert not (place / "state").exists()  # it looked before it touched anything


def spoil(etc, certificates, own, how):
    """Spoils the certificates of a program in `etc`, whose own are `own`.crt and .key; what the sentence says."""
    if how == "no authority":
        (etc / "cluster.crt").unlink()
        return "cluster.crt: No such file"
    if how == "none":
        (etc / f"{own}.crt").unlink()
        return f"{own}.crt: No such file"
    if how == "no key":
        (etc / f"{own}.key").unlink()
        return f"{own}.key: No such file"
    if how == "no certificate":
        (etc / f"{own}.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        return f"{own}.crt"
    if how == "empty key":
        (etc / f"{own}.key").write_text("")
        return f"{own}.key"
    if how == "another's key":
        shutil.copy(certificates / "user.key", etc / f"{own}.key")
        return "does not belong to"
    if how == "a user's":
        for suffix in (".crt", ".key"):
            shutil.copy(certificates / f"user{suffix}", etc / f"{own}{suffix}")
        return "make one with flocker-ca create-"
    if how == "another cluster's":
        ok("flocker-ca", "initialize", "--key-type", "ec", "other", cwd=(etc / "..").resolve())
        shutil.copy(etc / ".." / "cluster.crt", etc / "cluster.crt")
        return f"{own}.crt"
    raise AssertionError(how)


CERTIFICATES = ["no authority", "none", "no key", "no certificate", "empty key", "another's key", "a user's",
                "another cluster's"]


@pytest.mark.parametrize("how", CERTIFICATES)
@pytest.mark.parametrize("program", ["agent", "control"])
def test_program_certificates(place, strangers, program, how):
    own = "node" if program == "agent" else "control-service"
    said = spoil(place / "etc", strangers, own, how)
    line = agent_fails(place) if program == "agent" else control_fails(place)
    assert said in line, line
    assert not (place / "state").exists() and not (place / "data").exists()


def control_words(place, port="tcp:0:interface=127.0.0.1", agent_port="tcp:0:interface=127.0.0.1", data=None):
    return ["flocker-control", "--data-path", data or place / "data", "--port", port, "--agent-port", agent_port,
            "--certificates-directory", place / "etc"]


def control_fails(place, prefix=(), **settings):
    return fails(*control_words(place, **settings), prefix=prefix)


@contextlib.contextmanager
def control_runs(place, **settings):
    """A control service that starts well; yields its process."""
    words = control_words(place, **settings)
    with subprocess.Popen([str(bin_dir() / words[0]), *map(str, words[1:])], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while "REST API on port" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


def database(path, application=0, version=0, table="CREATE TABLE a (b)"):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA application_id={application}; PRAGMA user_version={version}; {table}")


def not_ours(path, how):
    if how == "text":
        path.write_text("not a database, and longer than the head of one. " * 10)
    elif how == "short":
        path.write_text("SQLite format 3")
    elif how == "another program's":
        database(path)
    elif how == "another program's id":
        database(path, application=0x47504B47)
    else:
        path.mkdir()


def checksum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else os.stat(path).st_mode


@pytest.mark.parametrize("how", ["text", "short", "another program's", "another program's id", "a folder"])
def test_store_of_another(place, how):
    store = place / "data" / "store.sqlite"
    store.parent.mkdir()
    not_ours(store, how)
    before = checksum(store)
    line = control_fails(place)
    assert str(store) in line, line
    assert checksum(store) == before
    assert {"store.sqlite", "lock"} >= set(os.listdir(store.parent)), os.listdir(store.parent)


@pytest.mark.parametrize("how", ["newer", "damaged", "cut off", "half"])
def test_store_of_ours(place, how):
    store = place / "data" / "store.sqlite"
    with control_runs(place):
        pass
    if how == "newer":
        with contextlib.closing(sqlite3.connect(store)) as db:
            db.execute("PRAGMA user_version=999")
    elif how == "damaged":
        with open(store, "r+b") as f:
            f.seek(100)
            f.write(os.urandom(os.path.getsize(store) - 100))
    elif how == "cut off":
        os.truncate(store, 50)
    else:
        os.truncate(store, os.path.getsize(store) // 2)
    before = checksum(store)
    line = control_fails(place)
    assert str(store) in line and (how != "newer" or "newer version of Flocker" in line), line
    assert checksum(store) == before


@pytest.mark.parametrize(("how", "said"), [
    ("a file", "Not a directory"), ("no parent", "No such file"), ("read-only", "read-only"),
    ("no permission", "Permission denied"), ("full", "disk is full; free space")])
def test_data_path(place, how, said):
    data, prefix = place / "data", []
    if how == "a file":
        data.write_text("keep me")
    elif how == "no parent":
        data = place / "no" / "such"
    elif how == "no permission":
        data.mkdir(mode=0o700)
        os.chown(data, 65534, 65534)
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    else:
        data.mkdir()
        script = f"mount -t tmpfs -o {'ro' if how == 'read-only' else 'size=4k'} tmpfs {data}; "
        script += f"dd if=/dev/zero of={data}/filler bs=4k 2>/dev/null || true; " if how == "full" else ""
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script + 'exec "$0" "$@"']
    line = control_fails(place, prefix, data=data)
    assert said.lower() in line.lower() and str(data) in line, line
    assert how != "a file" or data.read_text() == "keep me"


@pytest.mark.parametrize("which", ["port", "agent_port"])
def test_port_in_use(place, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        line = control_fails(place, **{which: f"tcp:{number}:interface=127.0.0.1"})
        assert str(number) in line and re.search("in use|uses it already", line), line
    with control_runs(place, **{which: f"tcp:{number}:interface=127.0.0.1"}):
        pass


def test_second_control_service(place):
    with control_runs(place) as first:
        line = control_fails(place)
        assert "used by another process" in line and f"pid {first.pid};" in line and str(place / "data") in line, line
        assert first.poll() is None


def test_second_agent(cluster, dataset):
    said = cluster.shell("h1", "timeout 20 flocker-agent 2>&1 || echo exit $?")
    assert "another flocker-agent runs on this node" in said and "exit 1\n" in said, said
    said = cluster.shell("h1", "timeout 20 flocker-agent --adopt 2>&1 || echo exit $?")
    assert "another flocker-agent runs on this node" in said and "exit 1\n" in said, said
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/file") == "precious\n"


# --- disks and files of a running cluster -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "garbage", "{}", "[1]", '{"store": "no uuid", "revision": 1}', "\\0\\377",
                                  '{"store": "%s", "revision": -1}' % NODE, '{"store": "%s", "revision": 1e400}' % NODE,
                                  '{"store": "%s"}' % NODE])
def test_damaged_memory_of_an_agent(place, text):
    state = place / "state"
    state.mkdir()
    (state / "store.json").write_bytes(text.encode().decode("unicode_escape").encode("latin-1"))
    before = (state / "store.json").read_bytes()
    line = agent_fails(place)
    assert "store.json is damaged" in line and "--adopt" in line, line
    assert (state / "store.json").read_bytes() == before


def test_adopt_after_damage(cluster, dataset):
    cluster.stop("h1", "agent")
    cluster.shell("h1", "echo damaged >/var/lib/flocker/store.json")
    said = cluster.shell("h1", "timeout 20 flocker-agent 2>&1 || echo exit $?")
    assert "store.json is damaged" in said and "flocker-agent --adopt" in said and "exit 1\n" in said, said
    cluster.run("h1", "flocker-agent", "--adopt")
    cluster.start("h1", "agent")
    cluster.wait_nodes(["h1", "h2"])
    cluster.wait_mounted(dataset, "h1")
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/file") == "precious\n"
    other = cluster.api.create_dataset(cluster.node("h1"))
    cluster.wait_mounted(other, "h1")
    cluster.api.delete_dataset(other)
    cluster.wait_gone(other)


def test_one_certificate_on_two_hosts(cluster, dataset):
    cluster.stop("h2", "agent")
    own = cluster.path("h2", "etc")
    shutil.copytree(own, own + ".kept")
    log = cluster.path("h2", "log", "agent")
    size = os.path.getsize(log)

    def logged():
        with open(log, encoding="utf-8") as f:
            f.seek(size)
            return f.read()

    def addresses():
        return {n["uuid"]: n["host"] for n in cluster.api.nodes()}
    try:
        for name in ("node.crt", "node.key"):
            shutil.copy2(cluster.path("h1", "etc", name), own)
        cluster.start("h2", "agent")
        refusal = f"two machines use the certificate of node {cluster.node('h1')}"
        wait_until(lambda: refusal in logged(), "it is refused by name", 15)
        assert "give each machine its own" in logged()
        holds(lambda: addresses()[cluster.node("h1")] == cluster.address("h1"), "the first one stays", 0.5)
        assert cluster.api.dataset_state(dataset)["path"]
        cluster.stop("h1", "agent")
        wait_until(lambda: addresses().get(cluster.node("h1")) == cluster.address("h2"), "the second is taken", 30)
        # It does not have the data, says so, and makes nothing up.
        reason = wait_until(lambda: cluster.api.expect("GET", f"/v1/state/datasets/{dataset}")["reason"], "a reason")
        assert reason["code"] == "data-missing", reason
        assert dataset not in cluster.shell("h2", f"ls {POOL} /flocker")
    finally:
        cluster.stop("h2", "agent")
        shutil.copytree(own + ".kept", own, dirs_exist_ok=True)
        shutil.rmtree(own + ".kept")
        cluster.start("h1", "agent")
        cluster.start("h2", "agent")
    cluster.wait_nodes(["h1", "h2"])
    cluster.wait_mounted(dataset, "h1")
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/file") == "precious\n"


@contextlib.contextmanager
def pool_of(cluster, host, pool):
    """The host's agent is stopped, and its pool named otherwise until the end."""
    path = cluster.path(host, "etc", "agent.yml")
    with open(path, encoding="utf-8") as f:
        before = f.read()
    cluster.stop(host, "agent")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({**json.loads(before), "dataset": {"backend": "btrfs", "pool": pool}}, f)
    try:
        yield
    finally:
        cluster.stop(host, "agent")
        with open(path, "w", encoding="utf-8") as f:
            f.write(before)
        cluster.start(host, "agent")


@pytest.mark.parametrize(("make", "pool", "said"), [
    ("truncate -s 16M /tmp/p; mkfs.ext4 -q -F /tmp/p", "/tmp/p", "/tmp/p holds ext4, not btrfs"),
    ("yes | head -c 1M >/tmp/p", "/tmp/p", "unknown data, not btrfs"),
    ("true", "relative/pool", "must be an absolute path")], ids=["ext4", "garbage", "relative"])
def test_pool_file_of_another(cluster, dataset, make, pool, said):
    with pool_of(cluster, "h2", pool):
        cluster.shell("h2", make)
        before = cluster.shell("h2", "sha256sum /tmp/p 2>/dev/null || true")
        told = cluster.shell("h2", "timeout 20 flocker-agent 2>&1 || echo exit $?")
        assert said in told and "Configuration error" in told and "exit 1\n" in told, told
        assert cluster.shell("h2", "sha256sum /tmp/p 2>/dev/null || true") == before
        cluster.shell("h2", "rm -f /tmp/p")
    cluster.wait_nodes(["h1", "h2"])


@pytest.mark.parametrize(("make", "pool", "said"), [
    ("mkdir -p /tmp/folder; touch /tmp/folder/file", "/tmp/folder", "/tmp/folder is not on btrfs"),
    ("true", "/tmp/no-such/", "/tmp/no-such/ is missing")], ids=["other file system", "missing"])
def test_pool_folder_of_another(cluster, make, pool, said):
    """A disk that is not mounted looks just like this: the node waits for it, touches nothing, and says so."""
    made = cluster.api.create_dataset(cluster.node("h2"))
    cluster.wait_mounted(made, "h2")
    cluster.shell("h2", f"echo precious >/flocker/{made}/file; sync")
    with pool_of(cluster, "h2", pool):
        cluster.shell("h2", make)
        before = cluster.shell("h2", "ls /tmp; ls -RA /tmp/folder || true")
        cluster.start("h2", "agent")

        def told():
            reason = cluster.api.expect("GET", f"/v1/state/datasets/{made}")["reason"]
            return reason if reason and reason["code"] == "storage-missing" and said in reason["text"] else None
        wait_until(told, f"storage-missing: {said}", 15)
        assert cluster.shell("h2", "ls /tmp; ls -RA /tmp/folder || true") == before
    wait_until(lambda: cluster.api.expect("GET", f"/v1/state/datasets/{made}")["reason"] is None, "it is well", 20)
    assert cluster.run("h2", "cat", f"/flocker/{made}/file") == "precious\n"
    cluster.api.delete_dataset(made)
    cluster.wait_gone(made)


def test_full_disk_of_the_control_service(cluster, dataset):
    """The store lies on a small disk from here on: the tests after this do not notice."""
    cluster.stop("control", "control")
    cluster.shell("control", "cp -a /var/lib/flocker /tmp/old; mount -t tmpfs -o size=4m tmpfs /var/lib/flocker; "
                             "cp -a /tmp/old/. /var/lib/flocker; rm -r /tmp/old")
    cluster.start("control", "control")
    cluster.wait_nodes(["h1", "h2"])
    cluster.shell("control", "dd if=/dev/zero of=/var/lib/flocker/filler bs=4096 2>/dev/null || true")
    acknowledged, refused = [], None
    while refused is None:  # the log has a little room at first
        wanted = str(uuid.uuid4())
        answer = cluster.api.call("POST", DATASETS, {"primary": cluster.node("h1"), "dataset_id": wanted,
                                                     "metadata": {f"k{i}": "x" * 250 for i in range(10)}})
        if answer.status == 201:
            acknowledged.append(wanted)
            assert len(acknowledged) < 500
        else:
            refused = wanted
    said = answer.json()["description"]
    assert answer.status == 503 and said.startswith("Nothing was changed") and "full" in said, answer.body
    before = configuration(cluster)
    assert {d["dataset_id"] for d in before[0] if not d["deleted"]} >= {dataset, *acknowledged}
    for method, path, body in (
            ("POST", DATASETS, {"primary": cluster.node("h1"), "dataset_id": refused, "metadata": {"k": "x" * 250}}),
            ("POST", CONTAINERS, {"node_uuid": cluster.node("h1"), "name": "full", "image": "busybox",
                                  "environment": {"A": "x" * 10000}})):
        answer = cluster.api.call(method, path, body)
        assert answer.status == 503 and "full" in answer.json()["description"], answer.body
    assert configuration(cluster) == before
    assert cluster.api.call("GET", f"/v1/state/datasets/{refused}").status == 404
    for one in acknowledged:
        cluster.wait_mounted(one, "h1")
    assert refused not in cluster.shell("h1", f"ls {POOL} /flocker")
    cluster.run("control", "rm", "/var/lib/flocker/filler")
    cluster.api.create_dataset(cluster.node("h1"), dataset_id=refused)
    before = configuration(cluster)
    cluster.kill("control", "control")
    cluster.start("control", "control")
    wait_until(lambda: configuration(cluster) == before, "what was acknowledged is there", 20)
    for one in (*acknowledged, refused):
        cluster.wait_mounted(one, "h1")
        cluster.api.delete_dataset(one)
    cluster.wait_mounted(dataset, "h1")
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/file") == "precious\n"
    for one in (*acknowledged, refused):
        cluster.wait_gone(one)
