"""Our gRPC transport against another implementation (grpcio), as server and as client, on a unix socket and
over mutual TLS. GRPC_ECHO names the program built from grpc_echo.c."""

import os
import select
import subprocess
import tempfile
import time
from concurrent import futures

import grpc
import pytest

ECHO = os.environ["GRPC_ECHO"]
LIMIT = 10  # seconds for any wait
LARGE = 3 << 20
SIZES = [
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.enable_http_proxy", 0),
]


@pytest.fixture(scope="module")
def certs():
    with tempfile.TemporaryDirectory(prefix="flocker-grpc-") as path:
        subprocess.run([ECHO, "certs", path], check=True, timeout=LIMIT)
        yield path


def read(path, name):
    with open(os.path.join(path, name), "rb") as f:
        return f.read()


class OurServer:
    def __init__(self, *args):
        self.process = subprocess.Popen([ECHO, "server", *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            self.stop()
            raise TimeoutError("the server does not get ready")
        word, port = self.process.stdout.readline().decode().split()
        assert word == "ready"
        self.port = int(port)

    def stop(self):
        self.process.stdin.close()
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
        assert code == 0


@pytest.fixture(params=["unix", "tls"])
def channel(request, certs, tmp_path):
    """A grpcio channel to our server."""
    if request.param == "unix":
        path = str(tmp_path / "socket")
        server = OurServer("unix", path)
        made = grpc.insecure_channel("unix:" + path, options=SIZES)
    else:
        server = OurServer("tls", certs)
        credentials = grpc.ssl_channel_credentials(
            read(certs, "ca.crt"), read(certs, "node.key"), read(certs, "node.crt"))
        made = grpc.secure_channel("127.0.0.1:%d" % server.port, credentials,
                                   options=SIZES + [("grpc.ssl_target_name_override", "control-service")])
    made.kind = request.param
    with made:
        yield made
    server.stop()


def test_unary(channel):
    assert channel.unary_unary("/t.Test/Echo")(b"hello", timeout=LIMIT) == b"hello"
    assert channel.unary_unary("/t.Test/Echo")(b"", timeout=LIMIT) == b""


def test_large_unary(channel):
    message = os.urandom(LARGE)
    assert channel.unary_unary("/t.Test/Echo")(message, timeout=LIMIT) == message


def test_stream(channel):
    messages = [b"message %d" % i for i in range(500)]
    assert list(channel.stream_stream("/t.Test/Echo")(iter(messages), timeout=LIMIT)) == messages


def test_many_calls_at_once(channel):
    calls = [channel.unary_unary("/t.Test/Echo").future(b"%d" % i, timeout=LIMIT) for i in range(300)]
    assert [c.result() for c in calls] == [b"%d" % i for i in range(300)]


def test_unknown_method(channel):
    with pytest.raises(grpc.RpcError) as e:
        channel.unary_unary("/t.Test/Nothing")(b"x", timeout=LIMIT)
    assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_status_text(channel):
    with pytest.raises(grpc.RpcError) as e:
        channel.unary_unary("/t.Test/Refuse")(b"x", timeout=LIMIT)
    assert e.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert e.value.details() == "100% café\nsecond line"


def test_deadline(channel):
    with pytest.raises(grpc.RpcError) as e:
        channel.unary_unary("/t.Test/Silent")(b"x", timeout=0.2)
    assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_compression_is_refused(channel):
    with pytest.raises(grpc.RpcError) as e:
        channel.unary_unary("/t.Test/Echo")(b"x" * 10000, timeout=LIMIT, compression=grpc.Compression.Gzip)
    assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_cancelled_stream_leaves_the_connection_alive(channel):
    call = channel.stream_stream("/t.Test/Silent")(iter([b"x"]), timeout=LIMIT)
    call.cancel()
    assert channel.unary_unary("/t.Test/Echo")(b"hello", timeout=LIMIT) == b"hello"


def test_peer(channel):
    name = channel.unary_unary("/t.Test/Peer")(b"x", timeout=LIMIT)
    assert name == (b"nobody" if channel.kind == "unix" else b"node-aaaaaaaa-0000-4000-8000-000000000001")


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        def silent(request, context):
            time.sleep(0.5)  # longer than the client waits
            return b""

        def refuse(request, context):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "50% naïve\nx")

        return {
            "/t.Test/Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "/t.Test/Stream": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
            "/t.Test/Refuse": grpc.unary_unary_rpc_method_handler(refuse),
            "/t.Test/Silent": grpc.unary_unary_rpc_method_handler(silent),
        }.get(details.method)


def our_client(*args):
    done = subprocess.run([ECHO, "client", *args], stdout=subprocess.PIPE, timeout=2 * LIMIT)
    lines = done.stdout.decode().split("\n")
    # Who notices the deadline first, client or server, is a matter of luck; so is the text.
    lines = [" ".join(line.split(" ")[:2]) if line.startswith("late ") else line for line in lines]
    return done.returncode, sorted(lines)


EXPECTED = sorted([
    "",
    "unary OK 1 5 ",
    "large OK 1 %d " % LARGE,
    "stream OK 20 200 ",
    "unknown UNIMPLEMENTED 0 0 Method not found!",
    "refused FAILED_PRECONDITION 0 0 50% naïve",
    "x",
    "late DEADLINE_EXCEEDED",
])


@pytest.fixture
def foreign_server():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=[Handlers()], options=SIZES)
    yield server
    server.stop(None).wait(LIMIT)


def test_our_client_unix(foreign_server, tmp_path):
    path = str(tmp_path / "socket")
    foreign_server.add_insecure_port("unix:" + path)
    foreign_server.start()
    assert our_client("unix", path) == (0, EXPECTED)


def test_our_client_tls(foreign_server, certs):
    credentials = grpc.ssl_server_credentials(
        [(read(certs, "control.key"), read(certs, "control.crt"))], read(certs, "ca.crt"), True)
    port = foreign_server.add_secure_port("127.0.0.1:0", credentials)
    foreign_server.start()
    assert our_client("tls", certs, str(port)) == (0, EXPECTED)
