"""The benchmarks of the REST API and of the agents' sessions: one control service on the loopback address, the load
generators of build/bench, and peers on the same disk. Ours and theirs take turns, so that other work hits both."""

import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from report import CHECKOUT, MIB, NotMeasured, emit, memory, processor_seconds, say

BIN = os.path.join(CHECKOUT, "build", "bin")
TOOLS = os.path.join(CHECKOUT, "build", "bench")
TURNS = 5  # of ours and theirs
SECONDS = 2  # of one turn
CONNECTIONS = 50  # of readers
WRITERS = 200


class Speed:
    """All in one temporary directory, which goes with the processes at the end."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="speed-", dir=os.path.join(CHECKOUT, "build"))
        self.processes = []
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        try:
            self.make_certificates()
        except BaseException:
            self.down()
            raise

    # --- tools -----------------------------------------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.directory, name)

    def make_certificates(self):
        self.certificates = self.path("certificates")
        os.mkdir(self.certificates)
        for command in (["initialize", "--key-type=ec", "bench"],
                        ["create-control-certificate", "--key-type=ec", "127.0.0.1"],
                        ["create-api-certificate", "--key-type=ec", "user"]):
            done = subprocess.run([os.path.join(BIN, "flocker-ca"), *command], cwd=self.certificates, capture_output=True,
                                  text=True, check=False)
            if done.returncode != 0:
                raise NotMeasured(f"flocker-ca {command[0]}: {done.stderr or done.stdout}")
        for end in ("crt", "key"):
            os.rename(os.path.join(self.certificates, f"control-127.0.0.1.{end}"),
                      os.path.join(self.certificates, f"control-service.{end}"))

    def start(self, name, argv, **kwargs):
        """A process that lives until stop() or down(). Its messages go to NAME.log."""
        with open(self.path(f"{name}.log"), "wb") as log:
            process = subprocess.Popen(argv, cwd=self.directory, stderr=log, stdin=kwargs.pop("stdin", subprocess.DEVNULL),
                                       **kwargs)
        self.processes.append(process)
        return process

    def stop(self, process):
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.processes.remove(process)

    def down(self):
        for process in reversed(list(self.processes)):
            self.stop(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self, name):
        with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def control(self, store):
        """A control service on this store, once it serves: the process, its port, that of the agents, and the seconds
        that took."""
        begun = time.monotonic()
        endpoint = "tcp:0:interface=127.0.0.1"
        process = self.start("control", [os.path.join(BIN, "flocker-control"), "-d", self.path(store), "-c",
                                         self.certificates, "-p", endpoint, "-a", endpoint], stdout=subprocess.DEVNULL)
        while True:
            ports = re.search(r"REST API on port (\d+), agents on port (\d+)", self.log("control"))
            if ports:
                return process, int(ports[1]), int(ports[2]), time.monotonic() - begun
            if process.poll() is not None or time.monotonic() > begun + 120:
                raise NotMeasured(f"the control service does not start: {self.log('control')[-500:]}")
            time.sleep(0.005)

    def fill(self, store, datasets, nodes):
        self.tool("fill", "-d", self.path(store), f"--datasets={datasets}", f"--nodes={nodes}", timeout=600)

    def bare(self, size):
        process = self.start(f"bare-{size}", [os.path.join(TOOLS, "bare"), "-c", self.certificates, f"--bytes={size}"],
                             stdout=subprocess.PIPE, text=True)
        return process, int(process.stdout.readline() or 0)

    def etcd(self):
        """A single etcd with mutual TLS."""
        ports = []
        for _ in range(2):
            with socket.socket() as s:  # free now; nothing else here picks ports from there
                s.bind(("127.0.0.1", 0))
                ports.append(s.getsockname()[1])
        client, peer = (f"https://127.0.0.1:{port}" for port in ports)
        crt, key, ca = (os.path.join(self.certificates, name) for name in
                        ("control-service.crt", "control-service.key", "cluster.crt"))
        process = self.start("etcd", [
            "etcd", "--name=bench", f"--data-dir={self.path('etcd')}", f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=bench={peer}", f"--cert-file={crt}", f"--key-file={key}", f"--trusted-ca-file={ca}",
            "--client-cert-auth", f"--peer-cert-file={crt}", f"--peer-key-file={key}", f"--peer-trusted-ca-file={ca}",
            "--log-outputs=stderr"], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self.serves(ports[0]):
            if process.poll() is not None or time.monotonic() > end:
                raise NotMeasured(f"etcd does not start: {self.log('etcd')[-500:]}")
            time.sleep(0.05)
        return process, ports[0]

    @staticmethod
    def serves(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def tool(self, name, *arguments, timeout=120):
        done = subprocess.run([os.path.join(TOOLS, name), *arguments], cwd=self.directory, capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, timeout=timeout)
        if done.returncode != 0:
            raise NotMeasured(f"{name}: {done.stderr[-500:]}")
        if done.stderr:
            say(f"{name}: {done.stderr.splitlines()[0]}")
        return json.loads(done.stdout) if done.stdout else None

    def load(self, port, operation, *options, seconds=SECONDS):
        return self.tool("load", "-p", str(port), "-c", self.certificates, f"--seconds={seconds}", *options, operation)

    # --- what is measured ------------------------------------------------------------------------------------------

    def durable_create_1(self):
        process, port, _, _ = self.control("one")
        rounds = 100
        self.load(port, "durable", f"--rounds={rounds}")  # warms up
        parts = [self.load(port, "durable", f"--rounds={rounds}", f"--probe={self.path('probe')}") for _ in range(TURNS)]
        self.stop(process)
        ratios = [(p["create_p50_ms"] - p["get_p50_ms"]) / p["append_p50_ms"] for p in parts]
        return emit("durable_create_1", statistics.median(ratios), "appends", goal=1.3,
                    create_ms=round(statistics.median(p["create_p50_ms"] for p in parts), 3),
                    get_ms=round(statistics.median(p["get_p50_ms"] for p in parts), 3),
                    append_ms=round(statistics.median(p["append_p50_ms"] for p in parts), 3),
                    each=[round(r, 2) for r in ratios])

    def durable_create_200(self):
        etcd, etcd_port = self.etcd()
        process, port, _, _ = self.control("many")
        ours, theirs = [], []
        for _ in range(TURNS):
            ours.append(self.load(port, "create", f"--connections={WRITERS}"))
            theirs.append(self.tool("puts", "-p", str(etcd_port), "-c", self.certificates, f"--connections={WRITERS}",
                                    f"--seconds={SECONDS}"))
        self.stop(process)
        self.stop(etcd)
        return emit("durable_create_200", self.rate(ours), "per second", theirs=self.rate(theirs), ratio_goal=1,
                    peer="etcd, gRPC Put of 300 bytes", p99_ms=self.median(ours, "p99_ms"),
                    their_p99_ms=self.median(theirs, "p99_ms"))

    @staticmethod
    def median(parts, key):
        return round(statistics.median(p[key] for p in parts), 2)

    def rate(self, parts):
        if any(p.get("errors") for p in parts):
            raise NotMeasured("some requests were refused")
        return self.median(parts, "per_s")

    def get_one(self):
        path = "/v1/state/datasets/{dataset}"
        return self.against_bare("get_one", f"--path={path}", "--datasets=1000")

    def get_list_1000(self):
        return self.against_bare("get_list_1000", "--path=/v1/configuration/datasets")

    def against_bare(self, name, *options):
        """The same requests to the control service and to a server that does nothing else; then those for what the client
        has already."""
        self.fill(name, datasets=1000, nodes=1)
        control, port, _, _ = self.control(name)
        once = self.load(port, "get", *options, seconds=0.2)
        bare, bare_port = self.bare(once["bytes"] // once["n"])
        use = {"ours": [], "theirs": []}
        parts = {"ours": [], "theirs": [], "our_304": [], "their_304": []}
        for _ in range(TURNS):
            for whose, process, at in (("ours", control, port), ("theirs", bare, bare_port)):
                before = processor_seconds(process.pid)
                parts[whose].append(self.load(at, "get", f"--connections={CONNECTIONS}", *options))
                used = processor_seconds(process.pid) - before
                use[whose].append(1e6 * used / parts[whose][-1]["n"])
        for _ in range(TURNS):
            for whose, at in (("our_304", port), ("their_304", bare_port)):
                parts[whose].append(self.load(at, "get", "--connections=1", "--conditional", *options[:1],
                                              *(["--datasets=1"] if "{" in options[0] else []), seconds=SECONDS / 2))
        self.stop(control)
        self.stop(bare)
        return emit(name, self.rate(parts["ours"]), "per second", theirs=self.rate(parts["theirs"]), ratio_goal=0.8,
                    peer="libevent's evhttp with a fixed answer", bytes=once["bytes"] // once["n"],
                    processor_us=round(statistics.median(use["ours"]), 1),
                    their_processor_us=round(statistics.median(use["theirs"]), 1),
                    not_modified_ms=self.median(parts["our_304"], "p50_ms"),
                    their_not_modified_ms=self.median(parts["their_304"], "p50_ms"))

    # --- agents ----------------------------------------------------------------------------------------------------

    def agents(self, port, count, *options):
        """Simulated agents, once all have their sessions and orders."""
        process = self.start("agents", [os.path.join(TOOLS, "agents"), "-p", str(port), "-c", self.certificates,
                                        f"--agents={count}", *options],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        end = time.monotonic() + 900
        while self.count(process)["ready"] < count:
            if time.monotonic() > end:
                raise NotMeasured(f"not all of {count} agents have their sessions")
            time.sleep(0.2)
        return process

    def count(self, agents):
        """What they did since the last count."""
        try:
            agents.stdin.write("count\n")
            agents.stdin.flush()
            return json.loads(agents.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as e:
            raise NotMeasured(f"the simulated agents ended: {self.log('agents')[-500:]}") from e

    def quiet(self, agents):
        """Waits until no message came for a while."""
        end = time.monotonic() + 900
        while self.count(agents)["messages"]:
            if time.monotonic() > end:
                raise NotMeasured("the agents get messages without end")
            time.sleep(1)

    @staticmethod
    def trace(path):
        """(dataset, time, node) of each line."""
        with open(path, encoding="ascii") as f:
            return [(dataset, int(moment), node) for dataset, moment, node in map(str.split, f)]

    def push_latency(self):
        count, concerned = 100, 10
        orders, creates = self.path("orders"), self.path("creates")
        control, port, agent_port, _ = self.control("push")
        agents = self.agents(agent_port, count, f"--trace={orders}")
        self.quiet(agents)
        self.load(port, "create", "--rate=50", "--connections=4", f"--nodes={concerned}", f"--trace={creates}", seconds=6)
        time.sleep(1)
        done = self.count(agents)
        self.stop(agents)
        self.stop(control)
        created = {dataset: (moment, node) for dataset, moment, node in self.trace(creates)}
        arrived = {}
        for dataset, moment, node in self.trace(orders):
            if created[dataset][1] != node:
                raise NotMeasured(f"an order about dataset {dataset} went to node {node}, not {created[dataset][1]}")
            arrived.setdefault(dataset, moment)
        if len(arrived) != len(created):
            raise NotMeasured(f"of {len(created)} datasets only {len(arrived)} were ordered")
        waits = [max(0, arrived[d] - moment) / 1e6 for d, (moment, _) in created.items()]
        others = max(0, done["woken"] - concerned)
        met = emit("push_latency", statistics.median(waits), "ms", goal=5, p99=round(statistics.quantiles(waits, n=100)[98], 2),
                   max=round(max(waits), 2), changes=len(created), agents=count, concerned=concerned, others_woken=others)
        return met and not others

    # --- scale -----------------------------------------------------------------------------------------------------

    def scale_million(self):
        """Four results of one large cluster."""
        datasets, nodes = 1_000_000, 10_000
        begun = time.monotonic()
        self.fill("scale", datasets, nodes)
        say(f"wrote the store in {time.monotonic() - begun:.0f} s")
        control, port, agent_port, start = self.control("scale")
        good = emit("scale_start", start, "s", goal=10, datasets=datasets,
                    processor_s=round(processor_seconds(control.pid), 1))
        # One socket a session on both sides, and some for the rest.
        sockets = min(nodes, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200)
        begun = time.monotonic()
        agents = self.agents(agent_port, sockets)
        self.quiet(agents)
        say(f"{sockets} agents had sessions and orders after {time.monotonic() - begun:.0f} s")
        alone = self.read_one(port)
        creates = self.load(port, "create", "--rate=500", "--connections=64", f"--nodes={sockets}", seconds=10)
        good = emit("scale_create", creates["p99_ms"], "ms", goal=10, p50_ms=creates["p50_ms"], max_ms=creates["max_ms"],
                    creates=creates["n"], read_p99_ms=alone["p99_ms"]) and good
        good = self.stall(port, alone, datasets) and good
        good = emit("scale_rss", memory(control.pid)[1] / MIB, "MiB", goal=1536, datasets=datasets + creates["n"],
                    sessions=self.count(agents)["up"]) and good
        self.stop(agents)
        self.stop(control)
        return good

    def read_one(self, port, seconds=4):
        return self.load(port, "get", "--rate=200", "--connections=16", "--path=/v1/state/datasets/{dataset}",
                         "--datasets=1000000", seconds=seconds)

    def stall(self, port, alone, datasets):
        """What other requests wait while somebody reads the whole list."""
        begun = time.monotonic()
        reader = self.start("reader", [os.path.join(TOOLS, "load"), "-p", str(port), "-c", self.certificates,
                                       "--seconds=0.01", "get"], stdout=subprocess.PIPE, text=True)
        others = []
        while reader.poll() is None:
            others.append(self.read_one(port, seconds=1))
        took = time.monotonic() - begun
        listed = json.loads(reader.stdout.read() or "{}")
        self.processes.remove(reader)
        if listed.get("n") != 1 or listed["bytes"] < 100 * datasets:
            raise NotMeasured(f"the list could not be read: {self.log('reader')}")
        return emit("scale_list_stall", max(o["max_ms"] for o in others), "ms", goal=10, without_list_ms=alone["max_ms"],
                    p50_ms=self.median(others, "p50_ms"), list_mib=round(listed["bytes"] / MIB), list_s=round(took, 1))
