"""flockerctl against a control service that gives prepared answers, over real mutual TLS on loopback."""

import fcntl
import http.server
import json
import os
import pty
import re
import shutil
import socket
import ssl
import struct
import subprocess
import termios
import threading
import time

import pytest

from cli_programs import bin_dir, ok, run

A = "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
B = "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"
GONE = "99999999-1c54-4e0b-8a3d-6b7c8d9e0f11"
D1 = "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
D2 = "c2a0f3c2-9e4d-4b26-8f15-2468ace13579"
D3 = "d3a0f3c2-9e4d-4b26-8f15-2468ace13579"
D4 = "e4a0f3c2-9e4d-4b26-8f15-2468ace13579"
D5 = "f5a0f3c2-9e4d-4b26-8f15-2468ace13579"

NODES = [{"uuid": B, "host": "10.20.0.12"}, {"uuid": A, "host": "10.20.0.11"}]
CONFIGURED = [
    {"dataset_id": D1, "primary": A, "deleted": False, "metadata": {"team": "shop", "name": "orders"},
     "maximum_size": 21474836480},
    {"dataset_id": D2, "primary": B, "deleted": False, "metadata": {}},
    {"dataset_id": D3, "primary": GONE, "deleted": False, "metadata": {"name": "größe日本"}, "maximum_size": 67108864},
    {"dataset_id": D4, "primary": A, "deleted": True, "metadata": {"name": "old"}},
    {"dataset_id": D5, "primary": A, "deleted": True, "metadata": {"name": "older"}},
]  # fmt: skip
STATE = [
    {"dataset_id": D1, "primary": A, "path": f"/flocker/{D1}", "maximum_size": 21474836480},
    {"dataset_id": D3, "maximum_size": 67108864},
    {"dataset_id": D4, "maximum_size": 67108864},
]

REASON = {
    "code": "lease-held",
    "text": "node 3f0c9c1e holds a lease without end",
    "since": time.time() - 190,
    "next_try": None,
    "advice": "Release the lease.",
}


def detail(**changes):
    d = {
        "dataset_id": D1, "deleted": False, "primary": B, "owner": A, "epoch": 7, "born": True,
        "maximum_size": 21474836480, "metadata": {"name": "orders"}, "status": "attached",
        "path": f"/flocker/{D1}", "node": A, "holders": [A], "transfer": None, "reason": REASON,
        "nodes": [], "revision": 42,
    }  # fmt: skip
    d.update(changes)
    return d


class Control:
    """answers: (method, path) -> (status, JSON value or bytes[, headers]), or a list of them, the last repeated."""

    def __init__(self, certs, server_pair, port=0, trusts="cluster.crt"):
        self.answers = {
            ("GET", "/v1/state/nodes"): (200, NODES),
            ("GET", "/v1/configuration/datasets"): (200, CONFIGURED),
            ("GET", "/v1/state/datasets"): (200, STATE),
            ("GET", "/v1/configuration/containers"): (200, []),
            ("GET", "/v1/state/containers"): (200, []),
            ("GET", "/v1/version"): (200, {"flocker": "9.8.7"}),
        }
        self.seen = []  # (method, path, body)
        self.server_names = []
        self.closed = False
        control = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def answer(self):
                if control.closed:  # a connection that outlived the listening socket
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                control.seen.append((self.command, self.path, json.loads(body) if body else None))
                answer = control.answers.get((self.command, self.path), (404, b"<html>no such page</html>"))
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                status, value, *headers = answer
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, text in dict(*headers).items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a refused handshake is expected in some tests
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certs / f"{server_pair}.crt", certs / f"{server_pair}.key")
        context.load_verify_locations(certs / trusts)
        context.verify_mode = ssl.CERT_REQUIRED
        context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self.server = Server(("127.0.0.1", port), Handler)
        # The handshake happens in the connection's thread, at the first read.
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def changes(self):
        return [s for s in self.seen if s[0] != "GET"]

    def close(self):
        if self.closed:
            return
        self.closed = True
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    d = tmp_path_factory.mktemp("certs")
    ok("flocker-ca", "initialize", "--key-type=ec", "t", cwd=d)
    ok("flocker-ca", "create-control-certificate", "--key-type=ec", "somewhere.example.org", cwd=d)
    (d / "control-somewhere.example.org.crt").rename(d / "control-service.crt")
    (d / "control-somewhere.example.org.key").rename(d / "control-service.key")
    for user in ("user", "alice"):
        ok("flocker-ca", "create-api-certificate", "--key-type=ec", user, cwd=d)
    ok("flocker-ca", "create-node-certificate", "--key-type=ec", "--uuid", A, cwd=d)
    other = tmp_path_factory.mktemp("other")
    ok("flocker-ca", "initialize", "--key-type=ec", "other", cwd=other)
    ok("flocker-ca", "create-api-certificate", "--key-type=ec", "foreign", cwd=other)
    shutil.copy(other / "cluster.crt", d / "foreign-cluster.crt")
    for end in ("crt", "key"):
        shutil.copy(other / f"foreign.{end}", d / f"foreign.{end}")
    (d / "broken.crt").write_text("no certificate")
    (d / "broken.key").write_text("no key")
    return d


@pytest.fixture
def control(certs):
    c = Control(certs, "control-service")
    yield c
    c.close()


@pytest.fixture
def ctl(control, certs, tmp_path):
    """Runs flockerctl against `control`, in an empty directory."""

    def call(*arguments, **settings):
        return run(
            "flockerctl", "--control-service=127.0.0.1", f"--control-port={control.port}",
            f"--certs-path={certs}", *arguments, cwd=tmp_path, **settings,
        )  # fmt: skip

    return call


def output(done):
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def failure(done):
    assert done.returncode == 1, done
    assert done.stderr.startswith("Error: ") and done.stderr.endswith("\n"), done
    return done.stderr[7:-1]


# ---- reading ----


def test_list_nodes(ctl):
    expected = "SERVER    ADDRESS\n3f0c9c1e  10.20.0.11\n8d2f6a70  10.20.0.12\n"
    assert output(ctl("list-nodes")) == output(ctl("status")) == expected
    long = output(ctl("list-nodes", "-l")).splitlines()
    assert long[1] == f"{A}  10.20.0.11"
    assert json.loads(output(ctl("list-nodes", "-o", "json"))) == sorted(NODES, key=lambda n: n["uuid"])
    assert json.loads(output(ctl("-o", "json", "list-nodes"))) == sorted(NODES, key=lambda n: n["uuid"])


def test_list_nodes_with_space(ctl, control):
    control.answers["GET", "/v1/state/nodes"] = (200, [
        {"uuid": A, "host": "10.20.0.11", "space": {"total": 20 << 30, "free": 3 << 29}},
        {"uuid": B, "host": "10.20.0.12", "cordoned": True}])
    assert output(ctl("list-nodes")) == (
        "SERVER    ADDRESS     FREE           NOTE\n"
        "3f0c9c1e  10.20.0.11  1.5G of 20.0G\n"
        "8d2f6a70  10.20.0.12                 cordoned\n")


C = "c0ffee00-0000-4000-8000-000000000003"


def drained(ctl, control, spaces, datasets, *words, containers=(), copies=None):
    """Drains A; where each thing went, and the rest of the answer. spaces: (total, free) in GiB of B and C; datasets: GiB of each on A.
    A is fenced when `copies` says which node has a copy of each."""
    nodes = [{"uuid": A, "host": "10.20.0.11"}]
    for node, space in zip((B, C), spaces):
        nodes.append({"uuid": node, "host": node, **({"space": {"total": space[0] << 30, "free": space[1] << 30}} if space else {})})
    ids = [f"{i}0000000-0000-4000-8000-000000000000" for i in range(1, len(datasets) + 1)]
    configured = [{"dataset_id": i, "primary": A, "metadata": {}, "deleted": False, **({"maximum_size": size << 30} if size else {})}
                  for i, size in zip(ids, datasets)]
    control.answers.update({("GET", "/v1/state/nodes"): (200, nodes), ("GET", "/v1/configuration/datasets"): (200, configured),
                            ("GET", "/v1/configuration/containers"): (200, list(containers)), ("GET", "/v1/state/datasets"): (200, []),
                            ("POST", f"/v1/cordons/{A}"): (200, {})})
    items = [{"dataset_id": i, "node": node} for i, node in zip(ids, copies or [])]
    control.answers["GET", f"/v1/fences/{A}"] = (200, {"fence": {} if copies else None, "datasets": items})
    for i in ids:
        control.answers["POST", f"/v1/configuration/datasets/{i}"] = (200, {})
    for container in containers:
        control.answers["POST", f"/v1/configuration/containers/{container['name']}"] = (200, {})
    done = ctl("drain", "-o", "json", *words, "3f0c")
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    return [(m["id"][0], {B: "B", C: "C"}[m["to"]]) for m in answer["moved"]], answer["refused"], done


def test_drain_by_space(ctl, control):
    moved, refused, done = drained(ctl, control, [(100, 20), (100, 26)], [5, 5, 2])
    assert (moved, refused, done.returncode) == ([("1", "C"), ("2", "C"), ("3", "B")], [], 0)
    # What is promised is not free for others; what has no size counts.
    assert drained(ctl, control, [(30, 30), (100, 29)], [5, 0])[0] == [("1", "B"), ("2", "C")]
    # A container takes its data along.
    containers = [{"name": "xx", "node_uuid": A, "volumes": [{"dataset_id": "10000000-0000-4000-8000-000000000000", "mountpoint": "/d"}]},
                  {"name": "yy", "node_uuid": A}]
    assert drained(ctl, control, [(50, 20), (50, 24)], [10, 1], containers=containers)[0] == [("x", "C"), ("y", "B"), ("2", "B")]


def test_drain_where_nothing_has_room(ctl, control):
    moved, refused, done = drained(ctl, control, [(100, 10), (100, 8)], [9, 9, 1])
    assert moved == [("1", "B"), ("3", "C")] and done.returncode == 1
    assert [r["id"][0] for r in refused] == ["2"]
    assert refused[0]["text"].startswith("no node has room for it: its data may grow to 9.0G, and no node has more than 8.0G free.")
    moved, refused, done = drained(ctl, control, [(100, 10), (100, 8)], [9, 9, 1], "--to", C[:8])
    assert (moved, refused, done.returncode) == ([("1", "C"), ("2", "C"), ("3", "C")], [], 0)


def test_drain_to_copies(ctl, control):
    """Of a node that is fenced: a container goes to where most of its data are, not to where the first of its datasets is."""
    containers = [{"name": "xx", "node_uuid": A, "volumes": [{"dataset_id": f"{i}0000000-0000-4000-8000-000000000000",
                                                              "mountpoint": f"/d{i}"} for i in (1, 2, 3)]}]
    room = [(100, 50), (100, 60)]
    assert drained(ctl, control, room, [1, 4, 2], containers=containers, copies=[B, C, B])[0] == [("x", "C")]
    assert drained(ctl, control, room, [3, 4, 2], containers=containers, copies=[B, C, B])[0] == [("x", "B")]
    assert drained(ctl, control, room, [1, 0, 2], containers=containers, copies=[None, B, None])[0] == [("x", "B")]
    assert drained(ctl, control, room, [3, 4], copies=[B, C])[0] == [("1", "B"), ("2", "C")]
    # What it has no copy of must have room there; what it has, has it.
    assert drained(ctl, control, [(100, 2), (100, 60)], [5, 4, 2], containers=containers, copies=[B, C, B])[0] == [("x", "C")]
    assert drained(ctl, control, [(100, 0), (100, 60)], [5, 4, 2], containers=containers, copies=[B, B, B])[0] == [("x", "B")]


def test_drain_where_space_is_not_told(ctl, control):
    """One older agent among them: by what is promised, as before, and nothing is refused."""
    moved, refused, _ = drained(ctl, control, [(100, 1), None], [50, 50])
    assert (moved, refused) == ([("1", "B"), ("2", "C")], [])


def test_list(ctl):
    expected = (
        "DATASET                               SIZE        METADATA               STATUS       SERVER\n"
        f"{D2}  <no quota>                         pending ⌛   8d2f6a70 (10.20.0.12)\n"
        f"{D1}  20.00G      name=orders,team=shop  attached ✅  3f0c9c1e (10.20.0.11)\n"
        f"{D3}  0.06G       name=größe日本         detached     <missing>\n"
    )
    assert output(ctl("list")) == output(ctl("ls", "-h")) == expected


def test_list_deleted_and_long(ctl):
    lines = output(ctl("list", "--deleted", "--long")).splitlines()
    assert len(lines) == 6
    assert re.fullmatch(rf"{D4}  <no quota>  name=old +deleting +{A} \(10\.20\.0\.11\)", lines[4])
    assert re.fullmatch(rf"{D5}  <no quota>  name=older +deleted +{A} \(10\.20\.0\.11\)", lines[5])


def test_list_json(ctl):
    rows = json.loads(output(ctl("list", "-d", "-o", "json")))
    assert [(r["dataset_id"], r["status"], r["host"]) for r in rows] == [
        (D2, "pending", "10.20.0.12"),
        (D1, "attached", "10.20.0.11"),
        (D3, "detached", None),
        (D4, "deleting", "10.20.0.11"),
        (D5, "deleted", "10.20.0.11"),
    ]
    assert rows[1]["metadata"] == {"team": "shop", "name": "orders"}
    assert rows[1]["maximum_size"] == 21474836480


def test_what_comes_from_the_network_cannot_command_the_terminal(ctl, control):
    evil = {"dataset_id": D1, "primary": A, "deleted": False, "metadata": {"name": "a\x1b[2Jb\nc\u202e"}}
    control.answers["GET", "/v1/configuration/datasets"] = (200, [evil])
    out = output(ctl("list"))
    assert "name=a?[2Jb?c?" in out and len(out.splitlines()) == 2


def test_empty_lists(ctl, control):
    for path in ("/v1/state/nodes", "/v1/configuration/datasets", "/v1/state/datasets"):
        control.answers["GET", path] = (200, [])
    assert output(ctl("list-nodes")) == "SERVER  ADDRESS\n"
    assert output(ctl("list")) == "DATASET  SIZE  METADATA  STATUS  SERVER\n"
    assert output(ctl("list", "-o", "json")) == "[]\n"
    assert output(ctl("ps")) == "NAME  IMAGE  STATE  NODE  DATASET  REASON\n"


def test_version(ctl, tmp_path):
    own = ok("flockerctl", "--version").strip()
    assert output(ctl("version")) == f"flockerctl {own}\ncontrol service 127.0.0.1: 9.8.7\n"
    assert json.loads(output(ctl("version", "-o", "json"))) == {"flockerctl": own, "control_service": "9.8.7"}
    assert output(run("flockerctl", "version", cwd=tmp_path)) == (
        f"flockerctl {own}\ncontrol service: not asked (no --control-service given)\n"
    )


# ---- changing ----


def test_create(ctl, control):
    answer = {"dataset_id": D5, "primary": A, "deleted": False, "metadata": {"a": "b", "c": "d=e"}}
    control.answers["POST", "/v1/configuration/datasets"] = (201, answer)
    out = output(ctl("create", "-n", "3f", "-m", "a=b,c=d=e", "--size", "1.5GiB"))
    assert out.startswith(f"Dataset {D5} is in the configuration now")
    assert control.changes() == [
        (
            "POST",
            "/v1/configuration/datasets",
            {"primary": A, "metadata": {"a": "b", "c": "d=e"}, "maximum_size": 3 * 2**29},
        )
    ]
    assert json.loads(output(ctl("create", "--node=10.20.0.12", "-o", "json"))) == answer
    assert control.changes()[1][2] == {"primary": B}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["create"], "must specify --node"),
        (["create", "-n", "77"], "no node uuids matching 77"),
        (["create", "-n", ""], "no node uuids matching "),
        (["destroy"], "must specify --dataset"),
        (["destroy", "-d", "c2"], f"c2 is ambiguous dataset (it can be {D1}, {D2})"),
        (["destroy", "-d", "77"], "no dataset uuids matching 77"),
        (["move", "-t", "3f"], "must specify --dataset"),
        (["move", "-d", "c2b"], "must specify --destination"),
        (["move", "-d", "c2b", "-t", "77"], "no node uuids matching 77"),
        (["create-container", "db", "postgres"], "must specify --node"),
        (["create-container", "-n", "3f", "-V", "orders", "db", "postgres"],
         "malformed volume 'orders', please use DATASET:/mountpoint, or DATASET:/mountpoint:ro"),
        (["create-container", "-n", "3f", "-V", "orders:data", "db", "postgres"],
         "malformed volume 'orders:data', please use DATASET:/mountpoint, or DATASET:/mountpoint:ro"),
        (["move-container", "db"], "must specify --destination"),
        (["why", "77"], "no dataset uuids matching 77, and no container of that name"),
    ],
)  # fmt: skip
def test_mistakes_change_nothing(ctl, control, arguments, message):
    control.answers["GET", "/v1/state/containers/77"] = (404, {"description": "Container not found."})
    assert failure(ctl(*arguments)) == message
    assert control.changes() == []


def test_ambiguous_node(ctl, control):
    control.answers["GET", "/v1/state/nodes"] = (200, NODES + [{"uuid": A[:-1] + "0", "host": "10.20.0.13"}])
    assert failure(ctl("create", "-n", "3f0c")).startswith("3f0c is ambiguous node (it can be ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["create", "-n", "3f", "-m", "ab"], "malformed metadata specification 'ab', please use format 'a=b,c=d'"),
        (["create", "-s", "1X"], "malformed size '1X', please use bytes or a number with k, M, G or T, such as 1.5G"),
        (["create", "--wait=soon"], "--wait must be a whole number from 0 to 10000000, not 'soon'"),
        (["list", "-o", "xml"], "--output must be table or json, not 'xml'"),
        (["list", "extra"], "Wrong number of arguments: list takes no arguments."),
        (["list", "--frob"], "option --frob not recognized"),
        (["why"], "Wrong number of arguments: why takes one dataset or container."),
        (["frobnicate"], "Unknown command: frobnicate"),
        (["create-container", "-p", "80", "a", "b"], "malformed port '80', please use EXTERNAL:INTERNAL"),
        (["create-container", "-p", "80:99999", "a", "b"],
         "the internal port must be a whole number from 1 to 65535, not '99999'"),
        (["create-container", "-e", "X", "a", "b"], "malformed environment variable 'X', please use NAME=VALUE"),
        (["create-container", "--label", "=x", "a", "b"], "malformed label '=x', please use NAME=VALUE"),
        (["create-container", "--cpus", "half", "a", "b"], "--cpus must be a number of processors, such as 0.5, not 'half'"),
        (["create-container", "--stop-grace", "7", "a", "b"],
         "--stop-grace must be a number with s, m, h or d, such as 30d, not '7'"),
        (["create-container", "--health-retries", "0", "a", "b"],
         "--health-retries must be a whole number from 1 to 2147483647, not '0'"),
    ],
)  # fmt: skip
def test_usage_errors(ctl, control, arguments, message):
    done = ctl(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Usage: flockerctl ")
    assert done.stderr.endswith(f"\nERROR: {message}\n")
    assert control.seen == []


def test_destroy_by_name_and_by_prefix(ctl, control):
    answer = dict(CONFIGURED[0], deleted=True)
    control.answers["DELETE", f"/v1/configuration/datasets/{D1}"] = (200, answer)
    assert output(ctl("destroy", "-d", "orders")).startswith(f"Dataset {D1} is marked for deletion")
    assert json.loads(output(ctl("destroy", "-d", "C2B7", "-o", "json"))) == answer
    assert [s[:2] for s in control.changes()] == [("DELETE", f"/v1/configuration/datasets/{D1}")] * 2


def test_move(ctl, control):
    control.answers["POST", f"/v1/configuration/datasets/{D1}"] = (200, dict(CONFIGURED[0], primary=B))
    assert output(ctl("move", "-d", D1, "-t", B[:3])).startswith(f"Dataset {D1} is configured to move")
    assert control.changes() == [("POST", f"/v1/configuration/datasets/{D1}", {"primary": B})]


def test_a_deleted_dataset_is_found_only_when_no_other_matches(ctl, control):
    control.answers["POST", f"/v1/configuration/datasets/{D4}"] = (
        405,
        {"description": "The dataset has been deleted."},
    )
    assert failure(ctl("move", "-d", "old", "-t", "8d")) == "The dataset has been deleted."


# ---- what can go wrong ----


@pytest.mark.parametrize(
    "status, body, message",
    [
        (409, {"description": "The provided dataset_id is already in use."}, "The provided dataset_id is already in use."),
        (400, {"description": "It doesn't match.", "errors": ["one", "two"]}, "It doesn't match. one; two"),
        (500, "5e8f@/1/2", "the control service failed (status 500); see its log for incident 5e8f@/1/2"),
        (503, b"<html>busy</html>", "127.0.0.1:PORT answered POST /v1/configuration/datasets with status 503"),
        (404, b"<html/>", "the control service at 127.0.0.1:PORT does not offer POST /v1/configuration/datasets (is it an older one?)"),
        (201, b"surprise", "the answer of 127.0.0.1:PORT to POST /v1/configuration/datasets is not JSON: "),
    ],
)  # fmt: skip
def test_server_errors_are_reported(ctl, control, status, body, message):
    control.answers["POST", "/v1/configuration/datasets"] = (status, body)
    text = failure(ctl("create", "-n", "3f")).replace(str(control.port), "PORT")
    assert text.startswith(message) if message.endswith(": ") else text == message


def test_an_answer_of_another_shape_is_refused(ctl, control):
    control.answers["GET", "/v1/state/nodes"] = (200, {"not": "a list"})
    assert failure(ctl("list-nodes")) == "the control service's answer to /v1/state/nodes is not a list"
    control.answers["GET", "/v1/state/nodes"] = (200, [17, {"uuid": 3}, None])
    assert ctl("list-nodes").returncode == 0  # odd items do no harm


def test_unreachable_server(certs, tmp_path):
    with socket.socket() as s:  # bound, not listening: connections are refused
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        done = run("flockerctl", "--control-service", "127.0.0.1", "--control-port", port,
                   "--certs-path", certs, "list", cwd=tmp_path)  # fmt: skip
    assert failure(done).startswith(f"cannot reach the control service at 127.0.0.1:{port}: ")


def test_certificates_that_do_not_fit_are_named_before_any_call(ctl, control, certs):
    text = failure(ctl("--user=foreign", "list"))
    assert text == (
        f"cannot use {certs}/foreign.crt with {certs}/cluster.crt: "
        "the user's certificate was signed by another cluster's authority"
    )
    text = failure(ctl("--cluster-crt=foreign-cluster.crt", "list"))
    assert "the user's certificate was signed by another cluster's authority" in text
    assert f"this is not an API user's certificate but that of node-{A}" in failure(ctl("--user", A, "list"))
    assert "the user's certificate: not a certificate in PEM form" in failure(ctl("--user", "broken", "list"))
    assert control.seen == []


def test_wrong_authority(ctl):
    """The user's certificate fits the authority, the server's does not."""
    text = failure(ctl("--user=foreign", "--cluster-crt=foreign-cluster.crt", "list"))
    assert "did not prove to be the control service of this cluster" in text


def test_a_server_that_is_not_the_control_service(certs, tmp_path):
    """Signed by the right authority, but a node's or a user's certificate."""
    for pair in (A, "alice"):
        c = Control(certs, pair)
        try:
            done = run("flockerctl", "--control-service=127.0.0.1", f"--control-port={c.port}",
                       f"--certs-path={certs}", "list", cwd=tmp_path)  # fmt: skip
        finally:
            c.close()
        assert "did not prove to be the control service" in failure(done)
        assert c.seen == []


def test_the_server_refuses_the_user(certs, tmp_path):
    c = Control(certs, "control-service", trusts="foreign-cluster.crt")
    try:
        done = run("flockerctl", "--control-service=127.0.0.1", f"--control-port={c.port}",
                   f"--certs-path={certs}", "list", cwd=tmp_path)  # fmt: skip
    finally:
        c.close()
    assert re.search(
        "refused the certificate .*/user.crt.* must be a user's certificate|or it refuses the certificate .*/user.crt",
        failure(done),
    )
    assert c.seen == []


def test_missing_certificates(ctl, certs):
    text = failure(ctl("--user=nobody", "list"))
    assert text.startswith(
        f"Cannot read the user's certificate. No such file or directory: {certs}/nobody.crt; make one with"
    )
    text = failure(ctl("--cluster-crt=none.crt", "list"))
    assert text.startswith(
        f"Cannot read the cluster's certificate. No such file or directory: {certs}/none.crt; copy it"
    )


def test_a_proxy_in_the_environment_is_not_used(ctl):
    output(ctl("list-nodes", env={"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
                                  "ALL_PROXY": "http://127.0.0.1:9"}))  # fmt: skip


def test_the_name_asked_for_is_control_service(ctl, control):
    output(ctl("list-nodes"))
    assert control.server_names == ["control-service"]


# ---- where the control service is ----


def test_no_command_and_no_place(tmp_path):
    done = run("flockerctl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Please specify a command.\nTry --help for usage details.\n"
    assert failure(run("flockerctl", "list", cwd=tmp_path)).startswith("must specify --control-service")


def test_environment(control, certs, tmp_path):
    env = {"FLOCKER_CERTS_PATH": str(certs), "FLOCKER_USER": "alice", "FLOCKER_CONTROL_SERVICE": "127.0.0.1"}
    port = f"--control-port={control.port}"
    output(run("flockerctl", port, "ls", cwd=tmp_path, env=env))
    output(run("flocker-volumes", port, "ls", cwd=tmp_path, env=env))
    output(run("flocker", "ctl", port, "ls", cwd=tmp_path, env=env))
    done = run("flockerctl", port, "--user", "nobody", "ls", cwd=tmp_path, env=env)  # an option wins
    assert "nobody.crt" in failure(done)


def test_cluster_yml(control, certs, tmp_path):
    port = f"--control-port={control.port}"
    for name in ("cluster.crt", "alice.crt", "alice.key"):
        shutil.copy(certs / name, tmp_path / name)
    yml = tmp_path / "cluster.yml"
    yml.write_text("cluster_name: x\nusers: [alice, bob]\ncontrol_node: 127.0.0.1\n")
    output(run("flockerctl", port, "ls", cwd=tmp_path))
    output(run("flockerctl", port, "--cluster-yml", yml, "ls", cwd="/"))
    yml.write_text("users: [alice]\nagent_config: {version: 1, control-service: {hostname: 127.0.0.1}}\n")
    output(run("flockerctl", port, "ls", cwd=tmp_path))
    yml.write_text("users: [alice]\n")
    assert failure(run("flockerctl", port, "ls", cwd=tmp_path)).startswith("must specify --control-service")
    (tmp_path / "agent.yml").write_text("version: 1\ncontrol-service: {hostname: 127.0.0.1, port: 4524}\n")
    output(run("flockerctl", port, "ls", cwd=tmp_path))
    assert "bob.crt" in failure(run("flockerctl", port, "--user=bob", "ls", cwd=tmp_path))
    yml.write_text("users: [alice\n")
    assert failure(run("flockerctl", port, "ls", cwd=tmp_path)).startswith("./cluster.yml: not YAML: line ")
    missing = failure(run("flockerctl", "--cluster-yml=none.yml", "ls", cwd=tmp_path))
    assert missing == "Cannot read the cluster's file. No such file or directory: none.yml"


def test_verbose_logs_the_calls_to_a_file(ctl, tmp_path):
    log = tmp_path / "log"
    output(ctl("-v", f"--logfile={log}", "list-nodes"))
    assert "GET /v1/state/nodes: status 200" in log.read_text()


# ---- show and why ----


def test_why_dataset(ctl, control):
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (200, detail())
    control.answers["GET", "/v1/state/containers/orders"] = (404, {"description": "Container not found."})
    out = output(ctl("why", "orders"))
    assert re.fullmatch(
        rf"dataset {D1} \(name=orders\)\n"
        r"  wanted     on 8d2f6a70 \(10\.20\.0\.12\)\n"
        rf"  actual     attached, on 3f0c9c1e \(10\.20\.0\.11\) at /flocker/{D1}\n"
        r"  blocked by lease-held: node 3f0c9c1e holds a lease without end\n"
        r"  since      \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(\d+m ago\)\n"
        r"  next try   when something changes\n"
        r"  to do      Release the lease\.\n",
        out,
    )
    both = json.loads(output(ctl("why", "orders", "-o", "json")))
    assert both == {"dataset": detail(), "container": None}


def test_why_with_transfer_next_try_and_nodes(ctl, control):
    control.answers["GET", f"/v1/state/containers/{D1}"] = (404, {"description": "Container not found."})
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (
        200,
        detail(
            status="moving",
            transfer={"id": 3, "source": A, "destination": B, "phase": "copy", "bytes_sent": 3 * 2**28, "bytes_total": 2**30},
            reason=dict(REASON, next_try=time.time() + 30.5),
            nodes=[{"uuid": B, "present": False, "mounted": False, "mark": "none", "epoch": 0,
                    "reason": dict(REASON, code="no-space", text="the pool is full")}],
        ),
    )  # fmt: skip
    out = output(ctl("why", D1))
    assert (
        "  transfer   copy, 3f0c9c1e (10.20.0.11) -> 8d2f6a70 (10.20.0.12), 768.0M of about 1.0G (75 %) sent\n" in out
    )
    assert re.search(r"\n  next try   in (29|30)s\n", out)
    control.answers["GET", f"/v1/state/datasets/{D1}"] = copying(2**28, 2**20, 768)
    assert " 256.0M of about 1.0G (25 %) sent, 1.0M/s, 12m left\n" in output(ctl("show", D1))
    assert "\n  on node    8d2f6a70 (10.20.0.12): no-space: the pool is full\n" in out


def test_why_when_all_is_well_and_when_deleted(ctl, control):
    control.answers["GET", "/v1/state/containers/orders"] = (404, {"description": "Container not found."})
    control.answers["GET", f"/v1/state/datasets/{D1}"] = [
        (200, detail(primary=A, reason=None)),
        (200, detail(deleted=True, status="deleting", owner=None, node=None, path=None, primary=GONE)),
    ]
    assert output(ctl("why", "orders")).endswith("  blocked by nothing\n")
    out = output(ctl("why", "orders"))
    assert "  wanted     destroyed\n  actual     deleting\n" in out


def test_why_container_and_dataset_of_one_name(ctl, control):
    container = {
        "name": "orders", "node_uuid": B, "image": "postgres:9.4", "running": False, "state": "exited", "on": B,
        "volumes": [{"dataset_id": D1, "mountpoint": "/a"}, {"dataset_id": D2, "mountpoint": "/b", "read_only": True}],
        "reason": dict(REASON, code="crash-loop", text="exit status 1"), "revision": 3,
    }  # fmt: skip
    control.answers["GET", "/v1/state/containers/orders"] = (200, container)
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (200, detail())
    out = output(ctl("why", "orders"))
    assert f"dataset {D1} (name=orders)\n" in out
    assert "container orders\n  wanted     running on 8d2f6a70 (10.20.0.12)\n  actual     exited on 8d2f6a70" in out
    assert f"  datasets   {D1} at /a\n             {D2} at /b, read-only\n  blocked by crash-loop: exit status 1\n" in out
    control.answers["GET", "/v1/state/containers/web"] = (200, dict(container, name="web"))
    assert output(ctl("why", "web")).startswith("container web\n")


def test_show(ctl, control):
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (200, detail(holders=[A, GONE]))
    out = output(ctl("show", "c2b"))
    assert "  size       20.00G\n  owner      3f0c9c1e (10.20.0.11)\n  epoch      7\n  data       exist\n" in out
    assert out.endswith("  holders    3f0c9c1e (10.20.0.11)\n             99999999 (not connected)\n")
    assert "device" not in out
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (200, detail(device="/dev/loop3"))
    assert "  device     /dev/loop3\n  size " in output(ctl("show", "c2b"))
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (200, detail(holders=[A, GONE]))
    assert json.loads(output(ctl("show", "c2b", "-o", "json"))) == detail(holders=[A, GONE])
    assert "replica" not in out
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (
        200, detail(replica={"node": B, "snapshot": "t7-final", "until": time.time() + 3599}))
    assert re.search(r"\n  replica    8d2f6a70 \(10\.20\.0\.12\), until .* \(in 59m.*\)\n", output(ctl("show", "c2b")))


def test_replicas(ctl, control):
    control.answers["GET", "/v1/replicas"] = (200, [{"dataset_id": D1, "node": B, "snapshot": "t7-final", "until": 1800000000}])
    out = output(ctl("list-replicas"))
    assert out.split("\n")[0].split() == ["DATASET", "SERVER", "UNTIL"]
    assert D1 in out and "8d2f6a70 (10.20.0.12)" in out and "2027-01-15" in out
    assert json.loads(output(ctl("list-replicas", "-o", "json")))[0]["node"] == B
    control.answers["DELETE", f"/v1/replicas/{D1}"] = (200, CONFIGURED[0])
    assert "its replica is removed once its node is there" in output(ctl("drop-replica", "c2b"))
    control.answers["DELETE", f"/v1/replicas/{D1}"] = (404, {"description": "The dataset has no replica."})
    assert "The dataset has no replica." in failure(ctl("drop-replica", "c2b"))


LEASE = {"dataset_id": D1, "node_uuid": A, "expires": None, "acquired": False, "since": 1799999000, "mounts": ["m1", "m2"]}


def test_leases(ctl, control):
    acquired = {"dataset_id": D2, "node_uuid": GONE, "expires": 90.5, "acquired": True, "since": None, "mounts": []}
    both = {"dataset_id": D3, "node_uuid": B, "expires": None, "acquired": True, "since": 1799999000, "mounts": ["x"]}
    control.answers["GET", "/v1/state/leases"] = (200, [both, LEASE, acquired])
    lines = output(ctl("leases")).splitlines()
    assert lines[0].split() == ["DATASET", "SERVER", "BY", "SINCE", "EXPIRES", "IN"]
    assert [line.split("  ")[0] for line in lines[1:]] == [D2, D1, D3]
    assert "<missing>" in lines[1] and "API" in lines[1] and lines[1].endswith("90s")
    assert "3f0c9c1e (10.20.0.11)" in lines[2] and "2 Docker mounts" in lines[2] and "2027-01-15T" in lines[2]
    assert "1 Docker mount, API" in lines[3] and lines[3].endswith("never")
    assert json.loads(output(ctl("leases", "-o", "json")))[1]["mounts"] == ["m1", "m2"]


def test_release(ctl, control):
    state, lease = ("GET", f"/v1/state/datasets/{D1}"), ("DELETE", f"/v1/configuration/leases/{D1}")
    control.answers[state] = (200, detail(lease=None))
    assert failure(ctl("release", "orders")) == f"nobody holds a lease of dataset {D1}"
    control.answers[lease] = (200, {"dataset_id": D1, "node_uuid": A, "expires": None})
    control.answers[state] = (200, detail(lease=dict(LEASE, acquired=True, mounts=[])))
    assert "it was held by API on 3f0c9c1e (10.20.0.11), since 2027-01-15T" in output(ctl("release", "orders"))
    control.answers[state] = (200, detail(lease=LEASE))
    said = failure(ctl("release", "orders"))
    assert "held by 2 Docker mounts on 3f0c9c1e" in said and "That node is alive" in said and "--force" in said
    assert len(control.changes()) == 1
    output(ctl("release", "--force", "orders"))
    assert len(control.changes()) == 2
    control.answers[state] = (200, detail(lease=dict(LEASE, node_uuid=GONE)))
    said = failure(ctl("release", "orders"))
    assert "does not answer, which is no proof" in said and "flockerctl fence" in said


def test_why_says_who_holds_and_who_waits(ctl, control):
    control.answers["GET", f"/v1/state/containers/{D1}"] = (404, {"description": "Container not found."})
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (
        200, detail(primary=A, reason=None, lease=LEASE, waiting=[{"node_uuid": B, "since": 1799999100}]))
    out = output(ctl("why", D1))
    assert "  held by    2 Docker mounts on 3f0c9c1e (10.20.0.11), since 2027-01-15T" in out
    assert "  waiting    Docker on 8d2f6a70 (10.20.0.12), to mount it, since 2027-01-15T" in out


VERIFICATION = {"id": 7, "owner": A, "node": B, "snapshot": "t7-final", "asked": 1799999000, "ended": None, "result": "running",
                "text": None}


def test_verify(ctl, control):
    asked, looked = ("POST", f"/v1/verification/{D1}"), ("GET", f"/v1/state/datasets/{D1}")
    ended = dict(VERIFICATION, ended=1800000000, result="equal")
    control.answers[asked] = (201, VERIFICATION)
    control.answers[looked] = (200, detail(verification=ended))
    assert "the replica on node 8d2f6a70 (10.20.0.12) is the same as" in output(ctl("verify", "c2b"))
    assert json.loads(output(ctl("verify", "c2b", "-o", "json")))["result"] == "equal"
    assert re.search(r"\n  verified   2027-01-15.*, of the replica on node 8d2f6a70 \(10\.20\.0\.12\), equal\n", output(ctl("show", "c2b")))
    control.answers[looked] = (200, detail(verification=dict(ended, result="differs", text="digest 1, here 2")))
    assert "is not the same as what the dataset's owner has, and is removed: digest 1, here 2" in failure(ctl("verify", "c2b"))
    control.answers[looked] = (200, detail(verification=dict(ended, result="failed", text="a node is away")))
    assert "could not be compared: a node is away" in failure(ctl("verify", "c2b"))
    control.answers[looked] = (200, detail(verification=None))
    assert "was started anew meanwhile" in failure(ctl("verify", "c2b"))
    control.answers[looked] = (200, detail(verification=VERIFICATION))
    assert "is being compared" in output(ctl("verify", "c2b", "--no-wait"))
    assert "the replica on node 8d2f6a70 (10.20.0.12) is being compared\n" in output(ctl("show", "c2b"))
    assert "not compared after 0 seconds; it goes on" in failure(ctl("verify", "c2b", "--wait=0"))
    control.answers[asked] = (404, {"description": "The dataset has no replica."})
    assert "The dataset has no replica." in failure(ctl("verify", "c2b"))
    control.answers[asked] = (409, {"description": "The replica cannot be compared now: a move is under way."})
    assert "cannot be compared now: a move is under way" in failure(ctl("verify", "c2b"))


def test_verify_waits_for_what_passes(ctl, control):
    asked, looked = ("POST", f"/v1/verification/{D1}"), ("GET", f"/v1/state/datasets/{D1}")
    soon = (409, {"description": "The replica cannot be compared yet: it is still being made."}, {"Retry-After": "1"})
    control.answers[looked] = (200, detail(verification=dict(VERIFICATION, ended=1800000000, result="equal")))
    control.answers[asked] = [soon, soon, (201, VERIFICATION)]
    assert "is the same as" in output(ctl("verify", "c2b"))
    control.answers[asked] = [soon] * 15 + [(201, VERIFICATION)]
    done = ctl("verify", "c2b")
    assert done.returncode == 0 and done.stderr == "waiting: The replica cannot be compared yet: it is still being made.\n"
    control.answers[asked] = soon
    assert "waited 0 seconds: The replica cannot be compared yet" in failure(ctl("verify", "c2b", "--wait=0"))
    control.seen.clear()
    assert "The replica cannot be compared yet" in failure(ctl("verify", "c2b", "--no-wait"))
    assert len(control.changes()) == 1


def test_an_older_control_service_has_no_reasons(ctl):
    assert "does not offer GET /v1/state/containers/orders (is it an older one?)" in failure(ctl("why", "orders"))


# ---- containers ----


def test_ps(ctl, control):
    web = {"node_uuid": A, "name": "web", "image": "nginx:latest", "restart_policy": {"name": "never"}}
    db = {"node_uuid": B, "name": "db", "image": "postgres:9.4", "restart_policy": {"name": "always"},
          "volumes": [{"dataset_id": D1, "mountpoint": "/data"}]}  # fmt: skip
    old = {"node_uuid": A, "name": "old", "image": "x:1", "restart_policy": {"name": "never"},
           "volumes": [{"dataset_id": D2, "mountpoint": "/a"}, {"dataset_id": D1, "mountpoint": "/b", "read_only": True}]}  # fmt: skip
    control.answers["GET", "/v1/configuration/containers"] = (200, [web, db])
    control.answers["GET", "/v1/state/containers"] = (200, [dict(web, running=True), dict(old, running=True)])
    control.answers["GET", "/v1/state/containers/db"] = (
        200,
        {"name": "db", "state": "created", "on": None, "reason": dict(REASON, code="waiting-for-dataset", text="c2b7e0d4")},
    )
    control.answers["GET", "/v1/state/containers/old"] = (404, {"description": "Container not found."})
    assert output(ctl("ps")) == (
        "NAME  IMAGE         STATE    NODE                   DATASET            REASON\n"
        "db    postgres:9.4  created  8d2f6a70 (10.20.0.12)  c2b7e0d4           waiting-for-dataset: c2b7e0d4\n"
        "old   x:1           running  3f0c9c1e (10.20.0.11)  c2a0f3c2,c2b7e0d4\n"
        "web   nginx:latest  running  3f0c9c1e (10.20.0.11)\n"
    )
    rows = json.loads(output(ctl("ps", "-o", "json")))
    assert [(r["name"], r["state"], r["on"]) for r in rows] == [
        ("db", "created", None), ("old", "running", A), ("web", "running", A),
    ]  # fmt: skip
    assert ("GET", "/v1/state/containers/web", None) not in control.seen


def test_create_container(ctl, control):
    control.answers["POST", "/v1/configuration/containers"] = (201, {"name": "db", "node_uuid": A})
    out = output(ctl("create-container", "-n", "3f", "-V", "orders:/data", "-p", "5432:5433", "-p", "80:81",
                     "-e", "A=b=c", "--restart=always", "-m", "1M", "--cpu-shares", "5",
                     "db", "postgres:9.4", "--", "postgres", "-D", "/data"))  # fmt: skip
    assert out.startswith("Container db is in the configuration now")
    assert control.changes()[0][2] == {
        "node_uuid": A, "name": "db", "image": "postgres:9.4",
        "ports": [{"internal": 5433, "external": 5432}, {"internal": 81, "external": 80}],
        "environment": {"A": "b=c"}, "restart_policy": {"name": "always"}, "memory_limit": 2**20, "cpu_shares": 5,
        "command_line": ["postgres", "-D", "/data"], "volumes": [{"dataset_id": D1, "mountpoint": "/data"}],
    }  # fmt: skip
    output(ctl("create-container", "-n", "3f", "web", "nginx"))
    assert control.changes()[1][2] == {"node_uuid": A, "name": "web", "image": "nginx"}


def test_create_container_beyond_version_1(ctl, control):
    control.answers["POST", "/v1/configuration/containers"] = (201, {"name": "db", "node_uuid": A})
    output(ctl("create-container", "-n", "3f", "-V", "orders:/data:ro", "-V", D2 + ":/data/wal:rw", "--label", "a=b=c", "--label", "d=",
               "--entrypoint", "sh", "--entrypoint=-c", "-u", "70:70", "-w", "/srv", "--stop-signal", "SIGQUIT", "--stop-grace", "2m",
               "--cpus", "1.5", "--depends-on", "cache", "--depends-on", "schema:completed", "--health-cmd", "pg_isready -q",
               "--health-interval", "5s", "--health-timeout", "2s", "--health-start-period", "1m", "--health-retries", "3",
               "db", "postgres:9.4"))  # fmt: skip
    assert control.changes()[0][2] == {
        "node_uuid": A, "name": "db", "image": "postgres:9.4", "labels": {"a": "b=c", "d": ""}, "entrypoint": ["sh", "-c"],
        "user": "70:70", "working_dir": "/srv", "stop_signal": "SIGQUIT", "stop_grace_period": 120, "cpus": 1.5,
        "depends_on": [{"name": "cache", "condition": "started"}, {"name": "schema", "condition": "completed"}],
        "healthcheck": {"test": ["CMD-SHELL", "pg_isready -q"], "interval": 5, "timeout": 2, "start_period": 60, "retries": 3},
        "volumes": [{"dataset_id": D1, "mountpoint": "/data", "read_only": True}, {"dataset_id": D2, "mountpoint": "/data/wal"}],
    }  # fmt: skip
    output(ctl("create-container", "-n", "3f", "--entrypoint", "", "--no-healthcheck", "web", "nginx"))
    assert control.changes()[1][2] == {
        "node_uuid": A, "name": "web", "image": "nginx", "entrypoint": [], "healthcheck": {"disable": True}}  # fmt: skip


def test_destroy_and_move_container(ctl, control):
    control.answers["DELETE", "/v1/configuration/containers/db"] = (200, None)
    control.answers["POST", "/v1/configuration/containers/db"] = (200, {"name": "db", "node_uuid": B})
    output(ctl("destroy-container", "db"))
    output(ctl("move-container", "db", "-t", "8d"))
    assert control.changes() == [
        ("DELETE", "/v1/configuration/containers/db", None),
        ("POST", "/v1/configuration/containers/db", {"node_uuid": B}),
    ]
    ctl("destroy-container", "../datasets/x?y")
    assert control.changes()[2][1] == "/v1/configuration/containers/..%2Fdatasets%2Fx%3Fy"


# ---- waiting ----


def moved(control, *details):
    control.answers["POST", f"/v1/configuration/datasets/{D1}"] = (200, dict(CONFIGURED[0], primary=B))
    control.answers["GET", f"/v1/state/datasets/{D1}"] = list(details)


def test_wait_until_done(ctl, control):
    moved(control, (200, detail()), (503, b""), (200, detail(status="moving")), (200, detail(node=B, reason=None)))
    out = output(ctl("move", "-d", "orders", "-t", "8d", "--wait"))
    assert out.endswith("\nDone.\n")
    assert [s[1] for s in control.seen].count(f"/v1/state/datasets/{D1}") == 4


def test_wait_gives_up_with_the_reason(ctl, control):
    moved(control, (200, detail()))
    started = time.monotonic()
    done = ctl("move", "-d", "orders", "-t", "8d", "--wait=1")
    assert 0.9 < time.monotonic() - started < 20
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: dataset {D1}: not attached after 1 seconds: "
        "lease-held: node 3f0c9c1e holds a lease without end. Release the lease.\n"
    )


def test_wait_says_what_it_waits_for(ctl, control):
    moved(control, *[(200, detail())] * 25, (200, detail(node=B)))
    done = ctl("move", "-d", "orders", "-t", "8d", "--wait=30", "-o", "json")
    assert done.returncode == 0
    assert done.stderr == "waiting: lease-held: node 3f0c9c1e holds a lease without end. Release the lease.\n"
    assert json.loads(done.stdout)["primary"] == B


def copying(sent, rate=None, left=None):
    progress = {"fraction": sent / 2**30, "bytes_per_second": rate, "seconds_left": left}
    transfer = {"id": 3, "source": A, "destination": B, "phase": "copy", "bytes_sent": sent, "bytes_total": 2**30}
    return 200, detail(status="moving", reason=None, transfer=dict(transfer, progress=progress))


def test_wait_says_now_and_then_how_far_it_is(ctl, control):
    moved(control, *[copying(2**28)] * 25, (200, detail(node=B)))
    done = ctl("move", "-d", "orders", "-t", "8d", "--wait=30")
    assert done.returncode == 0
    assert done.stderr == "copying: 256.0M of about 1.0G (25 %) sent\n"


@pytest.mark.parametrize("container", [False, True])
def test_wait_draws_a_bar_on_a_terminal(control, certs, tmp_path, container):
    here = [copying(2**28, 2**25, 24)] * 25 + [copying(2**29, 2**25, 16)] * 10
    if container:
        running = {"name": "db", "host": "", "node_uuid": B, "on": A, "state": "moving", "reason": None,
                   "volumes": [{"dataset_id": D1, "mountpoint": "/data"}]}  # fmt: skip
        control.answers["POST", "/v1/configuration/containers/db"] = (200, {"name": "db", "node_uuid": B})
        control.answers["GET", "/v1/configuration/containers"] = (200, [{"name": "db", "node_uuid": A}])
        control.answers["GET", f"/v1/state/datasets/{D1}"] = [here[0], here[0], here[-1]]
        control.answers["GET", "/v1/state/containers/db"] = [(200, running)] * 45 + [
            (200, dict(running, on=B, state="running"))
        ]
        what = ["move-container", "db", "-t", "8d"]
    else:
        moved(control, *here, (200, detail(node=B)))
        what = ["move", "-d", "orders", "-t", "8d"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    done = subprocess.Popen(
        [bin_dir() / "flockerctl", "--control-service=127.0.0.1", f"--control-port={control.port}",
         f"--certs-path={certs}", *what, "--wait=30"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while True:
            shown += os.read(ours, 65536)
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert done.wait(10) == 0
    bars = [line for line in shown.decode().split("\r") if line.startswith("[")]
    numbers = "{} of about 1.0G ({} %) sent, 32.0M/s, {}s left"
    assert bars[0] == f"[{'=' * 8}>{' ' * 26}] {numbers.format('256.0M', 25, 24)}\x1b[K"
    assert f"[{'=' * 17}>{' ' * 17}] {numbers.format('512.0M', 50, 16)}\x1b[K" in bars
    assert all(len(bar.split("\x1b")[0]) < 90 for bar in bars)
    assert "[=" not in shown.decode().split("\r\x1b[K")[-1]  # the bar is taken away in the end


def test_wait_ends_when_somebody_wants_something_else(ctl, control):
    moved(control, (200, detail(primary=GONE)))
    assert failure(ctl("move", "-d", "orders", "-t", "8d", "--wait")) == (
        f"dataset {D1}: somebody set the dataset's primary to {GONE} meanwhile"
    )
    moved(control, (200, detail(deleted=True)))
    assert failure(ctl("move", "-d", "orders", "-t", "8d", "--wait")) == (
        f"dataset {D1}: somebody deleted the dataset meanwhile"
    )


def test_wait_for_create_and_destroy(ctl, control):
    control.answers["POST", "/v1/configuration/datasets"] = (201, dict(CONFIGURED[0]))
    control.answers["GET", f"/v1/state/datasets/{D1}"] = [
        (200, detail(primary=A, status="pending", node=None)),
        (200, detail(primary=A)),
        (200, detail(primary=A, deleted=True, status="deleting")),
        (200, detail(primary=A, deleted=True, status="deleted")),
    ]
    output(ctl("create", "-n", "3f", "--wait=20"))
    control.answers["DELETE", f"/v1/configuration/datasets/{D1}"] = (200, dict(CONFIGURED[0], deleted=True))
    output(ctl("destroy", "-d", "orders", "--wait=20"))
    assert len(control.answers["GET", f"/v1/state/datasets/{D1}"]) == 1


def test_grow(ctl, control):
    path = f"/v1/configuration/datasets/{D1}"
    control.answers["POST", path] = (200, dict(CONFIGURED[0], maximum_size=40 << 30))
    out = output(ctl("grow", "orders", "-s", "40G"))
    assert out.startswith(f"Dataset {D1} is configured to be larger; its node makes it so.\n")
    assert control.changes() == [("POST", path, {"maximum_size": 40 << 30})]
    said = {"uuid": A, "present": True, "mounted": True, "mark": "owned", "epoch": 7, "reason": None}
    other = dict(said, uuid=B, mounted=False, size=40 << 30)
    wanted = detail(maximum_size=40 << 30, reason=None)
    control.answers["GET", f"/v1/state/datasets/{D1}"] = [
        (200, dict(wanted, nodes=[other, dict(said, size=20 << 30)])),
        (200, dict(wanted, nodes=[])),
        (200, dict(wanted, nodes=[other, dict(said, size=40 << 30)])),
    ]
    assert output(ctl("grow", "orders", "-s", "40G", "--wait")).endswith("\nDone.\n")
    assert len(control.answers["GET", f"/v1/state/datasets/{D1}"]) == 1
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (200, dict(wanted, nodes=[other]))
    assert failure(ctl("grow", "orders", "-s", "40G", "--wait=0")) == (
        f"dataset {D1}: not as large as wanted after 0 seconds: no reason is known"
    )
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (200, dict(wanted, deleted=True))
    assert failure(ctl("grow", "orders", "-s", "40G", "--wait")) == f"dataset {D1}: somebody deleted the dataset meanwhile"
    control.answers["GET", f"/v1/state/datasets/{D1}"] = (404, {"description": "Dataset not found."})
    assert failure(ctl("grow", "orders", "-s", "40G", "--wait")) == (
        f"dataset {D1}: the dataset vanished from the configuration meanwhile"
    )
    control.answers["POST", path] = (409, {"description": "A dataset never becomes smaller."})
    assert failure(ctl("grow", "orders", "-s", "1G")) == "A dataset never becomes smaller."
    assert failure(ctl("grow", "orders")) == "must specify --size"
    assert "grow takes one dataset" in ctl("grow", "-s", "1G").stderr


def test_set_metadata(ctl, control):
    path = f"/v1/configuration/datasets/{D1}"
    control.answers["POST", path] = (200, dict(CONFIGURED[0], metadata={"name": "new", "a": "b\x1b[2J"}))
    out = output(ctl("set-metadata", "orders", "-m", "name=new,a=b"))
    assert out == f"Dataset {D1} has this metadata now: a=b?[2J,name=new\n"
    assert control.changes() == [("POST", path, {"metadata": {"name": "new", "a": "b"}})]
    assert json.loads(output(ctl("set-metadata", "orders", "-m", "name=new", "-o", "json")))["dataset_id"] == D1
    assert failure(ctl("set-metadata", "orders")) == "must specify --metadata"
    assert failure(ctl("set-metadata", "nosuch", "-m", "a=b")).startswith("no dataset")


def test_wait_for_containers(ctl, control):
    control.answers["POST", "/v1/configuration/containers/db"] = (200, {"name": "db", "node_uuid": B})
    base = {"name": "db", "node_uuid": B, "on": A, "state": "running", "reason": None}
    control.answers["GET", "/v1/state/containers/db"] = [
        (200, base),
        (200, dict(base, on=B, state="created")),
        (200, dict(base, on=B)),
    ]
    output(ctl("move-container", "db", "-t", "8d", "--wait=20"))
    control.answers["DELETE", "/v1/configuration/containers/db"] = (200, None)
    # The configuration forgets it at once; the node still stops it.
    control.answers["GET", "/v1/state/containers/db"] = (200, base)
    control.answers["GET", "/v1/state/containers"] = [
        (200, [dict(base, running=True)]),
        (200, [dict(base, running=False), {"name": "db2"}]),
        (200, [{"name": "db2"}]),
    ]
    output(ctl("destroy-container", "db", "--wait=20"))
    assert len(control.answers["GET", "/v1/state/containers"]) == 1


def test_a_silent_node_is_no_proof_that_its_container_is_gone(ctl, control):
    control.answers["DELETE", "/v1/configuration/containers/db"] = (200, None)
    control.answers["GET", "/v1/state/containers/db"] = (
        200,
        {"name": "db", "node_uuid": GONE, "on": None, "state": "absent", "reason": None},
    )
    done = ctl("destroy-container", "db", "--wait=1")
    assert done.returncode == 1
    assert f"not removed after 1 seconds: node-disconnected: node {GONE} is not connected" in done.stderr
    assert [s[0] for s in control.changes()] == ["DELETE"]


def test_wait_survives_a_restart_of_the_control_service(ctl, control, certs):
    moved(control, (200, detail()))
    path = f"/v1/state/datasets/{D1}"
    result = []
    waiter = threading.Thread(target=lambda: result.append(ctl("move", "-d", "orders", "-t", "8d", "--wait=40")))
    waiter.start()
    deadline = time.monotonic() + 20
    while not any(s[1] == path for s in control.seen) and time.monotonic() < deadline:
        time.sleep(0.02)
    control.close()
    time.sleep(2.5)  # long enough for the wait to say that nobody answers
    again = Control(certs, "control-service", port=control.port)
    try:
        again.answers["GET", path] = (200, detail(node=B))
        waiter.join(45)
    finally:
        again.close()
    assert len(result) == 1 and result[0].returncode == 0, result
    assert "waiting: cannot reach the control service at 127.0.0.1:" in result[0].stderr
    assert result[0].stdout.endswith("Done.\n")


def test_help():
    listed = ok("flockerctl", "--help")
    for name in ["list-nodes (status)", "list (ls)", "create", "destroy", "move", "version", "ps", "show", "why", "adopt",
                 "list-replicas", "drop-replica", "verify"]:
        assert f"\n  {name} " in listed
    for command in re.findall(r"^  ([a-z-]+) .*[a-z]$", listed.split("Commands:\n")[1], re.M):
        assert ok("flockerctl", command, "--help").startswith("Usage: flockerctl [options] ")
