"""The limits of docs/rest.md, each provoked; and that a client beyond them harms only itself. More in test_bad_input.py and
tests/unit/net/test_http_server.c, where times are short."""

import contextlib
import json
import re
import resource
import select
import socket
import ssl
import threading
import time

import pytest

from rest_service import CONTAINERS, DATASETS, LEASES, Service

A = "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
HEAD = f"POST {DATASETS} HTTP/1.1\r\nHost: a\r\n".encode()
GET = b"GET /v1/version HTTP/1.1\r\nHost: a\r\n"
MIB = 1 << 20


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory):
    made = Service(tmp_path_factory.mktemp("rest"))
    yield made
    made.close()
    assert "defect:" not in made.log.read_text()


def raw(service, data, timeout=30):
    """What comes back for these bytes until the service closes, or half a second passes after an answer."""
    with service.tls.wrap_socket(socket.create_connection(("127.0.0.1", service.port), timeout=timeout),
                                 server_hostname="127.0.0.1") as s:
        with contextlib.suppress(OSError):
            s.sendall(data)
        received = b""
        with contextlib.suppress(OSError):
            while more := s.recv(65536):
                received += more
                s.settimeout(0.5)
    return received


def documented(service):
    """Statuses that the OpenAPI document knows outside of the operations, by their text, and in any operation."""
    document = service.call("GET", "/v1/openapi.json").json()
    told = {int(m) for r in document["components"]["responses"].values() for m in re.findall(r"^(\d{3}),", r["description"])}
    return told | {int(status) for path in document["paths"].values() for method, o in path.items() if method != "parameters"
                   for status in o["responses"]}


BAD_HTTP = {
    "too long a head": (GET + b"A: " + b"a" * (16 << 10) + b"\r\n\r\n", 431),
    "too many headers": (GET + b"".join(b"H%d: 1\r\n" % i for i in range(100)) + b"\r\n", 431),
    "too long a body": (HEAD + b"Content-Length: %d\r\n\r\n" % (4 * MIB + 1), 413),
    "too long a body in chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\nx" % (4 * MIB + 1), 413),
    "lines without CR": (b"GET /v1/version HTTP/1.1\nHost: a\n\n", 400),
    "folded header": (GET + b"A: b\r\n c\r\n\r\n", 400), "blank before the colon": (GET + b"A : b\r\n\r\n", 400),
    "no colon": (GET + b"nonsense\r\n\r\n", 400), "control character": (GET + b"A: \x01\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400),
    "two lengths": (HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
    "length and chunks": (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
    "length with sign": (HEAD + b"Content-Length: +2\r\n\r\n{}", 400), "length in hex": (HEAD + b"Content-Length: 0x2\r\n\r\n{}", 400),
    "list of lengths": (HEAD + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    "another coding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "bad chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    "expectation": (GET + b"Expect: a-miracle\r\n\r\n", 417), "HTTP/2": (b"GET / HTTP/2.0\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n\r\n", 505), "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501), "lower case": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "path": (b"GET v1 HTTP/1.1\r\nHost: a\r\n\r\n", 400), "encoded path": (b"GET /%f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "encoded NUL": (b"GET /v1/version%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "encoded query": (f"GET {DATASETS}?name=%zz HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400),
    "no HTTP": (b"\x00\x01\x02\x03", 400),
}


@pytest.mark.parametrize("name", BAD_HTTP)
def test_bad_http(service, name):
    data, status = BAD_HTTP[name]
    answer = raw(service, data)
    said = re.match(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n(.*)", answer, re.S)
    assert said and int(said[1]) == status, answer[:500]
    assert json.loads(said[2])["description"] and b"Connection: close" in answer
    assert status in documented(service)


def test_what_is_within_the_limits(service):
    head = GET + b"A: " + b"a" * ((16 << 10) - len(GET) - 8) + b"\r\n\r\n"
    assert len(head) < 16 << 10 and raw(service, head).startswith(b"HTTP/1.1 200 ")
    body = json.dumps({"primary": A}).encode()
    answer = service.call("POST", DATASETS, body + b" " * (4 * MIB - len(body)))
    assert answer.status == 201
    answer = service.call("POST", DATASETS, b"[" * 32 + b"]" * 32)
    assert answer.json()["errors"] == ["the body must be a JSON object"]
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[i:i + 1]) for i in range(len(body))) + b"0\r\nTrailer: x\r\n\r\n"
    assert raw(service, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(("path", "body", "said"), [
    (DATASETS, b"[" * 33 + b"]" * 33, "nested deeper than 32"), (DATASETS, b'{"primary":' * 100000, "nested deeper than 32"),
    (DATASETS, b'{"maximum_size": 9223372036854775808}', "too big"), (LEASES, b'{"expires": 1e309}', "overflow"),
    (DATASETS, b'{"maximum_size": ' + b"9" * 100000 + b"}", "too big"),
    (DATASETS, b'{"metadata": {"a": "1", "a": "2"}}', "duplicate"), (CONTAINERS, b'{"name": "\xed\xa0\x80"}', "decode byte"),
    (DATASETS, b'{"a": NaN}', "line 1"), (DATASETS, b"{'a': 1}", "line 1"), (DATASETS, b'{"a": 1,}', "line 1"),
    (DATASETS, b"\xef\xbb\xbf{}", "line 1"), (DATASETS, b'{"a": 01}', "line 1")])
def test_bad_json(service, path, body, said):
    answer = service.call("POST", path, body)
    assert answer.status == 400 and said in answer.json()["errors"][0], answer


@contextlib.contextmanager
def not_slowed(service, seconds):
    """Another client is served all the time."""
    over, times = threading.Event(), []

    def work():
        connection = service.connect()
        while not over.is_set():
            began = time.monotonic()
            for method, path, body in (("GET", "/v1/version", None), ("POST", DATASETS, json.dumps({"primary": A}))):
                connection.request(method, path, body)
                assert connection.getresponse().read()
            times.append(time.monotonic() - began)
            time.sleep(0.01)
        connection.close()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert times and max(times) < seconds, sorted(times)[-5:]


def talk(s, data):
    """Sends all of it as fast as the service takes it, and returns what comes back until it closes. One thread: two must not use
    one TLS connection at once."""
    received = b""
    s.setblocking(False)
    ends = time.monotonic() + 30
    while True:
        assert time.monotonic() < ends, f"{len(data)} bytes not sent, {len(received)} received"
        waited_for = select.select([s], [s] if data else [], [], 1) if not s.pending() else ([s], [s], [])
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if data and waited_for[1]:
                data = data[s.send(data[:65536]):]
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            more = s.recv(65536)
            if not more:
                return received
            received += more


def test_pipelining(service):
    """Without waiting for a single answer: answered one by one, in order."""
    n = 3000
    requests = [f"GET /no/{i}/way HTTP/1.1\r\nHost: a\r\n\r\n".encode() if i % 2 else GET + b"\r\n" for i in range(n)]
    with not_slowed(service, 1):
        with service.tls.wrap_socket(socket.create_connection(("127.0.0.1", service.port), timeout=30),
                                     server_hostname="127.0.0.1") as s:
            received = talk(s, b"".join(requests) + GET + b"Connection: close\r\n\r\n")
    assert [int(x) for x in re.findall(rb"HTTP/1\.1 (\d+) ", received)] == [200, 404] * (n // 2) + [200]


@pytest.mark.deadline(60)
def test_slow_senders(service):
    """Ten seconds without a byte end a request; another client does not notice."""
    with not_slowed(service, 1):
        began = time.monotonic()
        for data in (HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"):
            answer = raw(service, data)
            assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive in time" in answer, answer
        assert 18 < time.monotonic() - began < 25
    assert 408 in documented(service)


def test_crowd(service):
    """A client that takes all connections pays for it itself: others get in, and keep what they have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    old = service.connect()
    try:
        with contextlib.ExitStack() as stack:
            for i in range(1500):
                s = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 10, ("127.0.0.2", 0)))
                if i % 3 == 0:
                    s.sendall(b"\x16\x03\x01")
            with not_slowed(service, 2):
                for _ in range(20):
                    assert service.call("GET", "/v1/version").status == 200
                    stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 10, ("127.0.0.2", 0)))
            old.request("GET", "/metrics")
            text = old.getresponse().read().decode()
            assert int(re.search(r"^flocker_http_connections (\d+)$", text, re.M)[1]) <= 1024
    finally:
        old.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_readers_of_events(service):
    """No more than 256, and the others are told so."""
    with contextlib.ExitStack() as stack:
        for _ in range(256):
            connection = service.connect()
            stack.callback(connection.close)
            connection.request("GET", "/v1/events")
            assert connection.getresponse().status == 200
        answer = service.call("GET", "/v1/events")
        assert (answer.status, answer.json()["description"]) == (503, "There are already 256 readers of events.")
        with not_slowed(service, 2):
            time.sleep(0.5)
