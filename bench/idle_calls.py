#!/usr/bin/python3
"""How many calls of a cloud's API an idle cluster makes: a control service and many agents, each in a mount namespace of its own,
on the EC2 of tests/ec2, which counts. Needs root; all of it runs in one network namespace.

  bench/idle_calls.py [--nodes N] [--volumes N] [--mounted N] [--seconds S] [--call-budget RATE,BURST] [--agents DIR]
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from report import CHECKOUT, NotMeasured, emit, say  # noqa: E402 pylint: disable=wrong-import-position

BIN = os.path.join(CHECKOUT, "build", "bin")
GOAL = 60  # calls an hour
GIB = 1 << 30
SETTLE_S = 75  # who lists does so a minute after it was named
AGENT = """version: 1
control-service: {{hostname: 127.0.0.1, port: {port}}}
docker: {{socket: {folder}/no-docker.sock, plugin-socket: none}}
routes: {{enabled: false}}
dataset:
  backend: aws
  region: eu-west-1
  zone: eu-west-1a
  access_key_id: AKIATEST
  secret_access_key: wJalr/K7MDENG+test=
  endpoint: http://127.0.0.1:{ec2}/
  compute_instance_id: {instance}
  host_root: {folder}/root
"""


class Cluster:
    """In a temporary folder, which goes with the processes."""

    def __init__(self, options):
        self.o = options
        self.folder = tempfile.mkdtemp(prefix="idle-", dir=os.path.join(CHECKOUT, "build"))
        self.processes = []
        self.made_root = not os.path.isdir("/flocker")
        os.makedirs("/flocker", exist_ok=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def down(self):
        for p in reversed(self.processes):
            p.terminate()
        for p in reversed(self.processes):
            try:
                p.wait(30)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if hasattr(self, "ec2"):
            self.ec2.stdin.close()  # it takes the loop devices away; the mounts have gone with their namespaces
            self.ec2.wait(120)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.made_root:
            os.rmdir("/flocker")

    def start(self, name, argv, **kwargs):
        with open(self.path(f"{name}.log"), "wb") as log:
            p = subprocess.Popen(argv, cwd=self.folder, stderr=log, **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **kwargs})
        self.processes.append(p)
        return p

    def log(self, name):
        with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    # --- parts -----------------------------------------------------------------------------------------------------

    def ca(self, *command):
        folder = self.path("certificates")
        os.makedirs(folder, exist_ok=True)
        done = subprocess.run([os.path.join(BIN, "flocker-ca"), command[0], "--key-type=ec", *command[1:]], cwd=folder,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotMeasured(f"flocker-ca {command[0]}: {done.stderr or done.stdout}")
        return set(os.listdir(folder))

    def certificates(self):
        self.ca("initialize", "bench")
        self.ca("create-control-certificate", "127.0.0.1")
        self.ca("create-api-certificate", "user")
        for end in ("crt", "key"):
            os.rename(self.path("certificates", f"control-127.0.0.1.{end}"), self.path("certificates", f"control-service.{end}"))
        nodes, known = [], set(os.listdir(self.path("certificates")))
        for _ in range(self.o.nodes):
            now = self.ca("create-node-certificate")
            nodes.append(next(n for n in now - known if n.endswith(".crt"))[:-4])
            known = now
        return nodes

    def cloud(self):
        self.instances = [f"i-{n:017x}" for n in range(1, self.o.nodes + 1)]
        argv = [sys.executable, os.path.join(CHECKOUT, "tests", "ec2", "fake_ec2.py"), "--dir", self.path("volumes")]
        for n, instance in enumerate(self.instances):
            argv += ["--instance", f"{instance}={self.path(f'n{n}', 'root')}"]
        self.ec2 = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ec2_port = int(self.ec2.stdout.readline().split()[1])

    def control(self):
        endpoint = "tcp:0:interface=127.0.0.1"
        p = self.start("control", [os.path.join(BIN, "flocker-control"), "-d", self.path("store"), "-c", self.path("certificates"),
                                   "-p", endpoint, "-a", endpoint, f"--call-budget={self.o.call_budget}"])
        end = time.monotonic() + 60
        while not (ports := re.search(r"REST API on port (\d+), agents on port (\d+)", self.log("control"))):
            if p.poll() is not None or time.monotonic() > end:
                raise NotMeasured(f"the control service does not start: {self.log('control')[-500:]}")
            time.sleep(0.05)
        self.rest_port, self.agent_port = int(ports[1]), int(ports[2])

    def agent(self, n, node):
        folder = self.path(f"n{n}")
        os.makedirs(os.path.join(folder, "flocker"))
        for name, to in (("cluster.crt", "cluster.crt"), (f"{node}.crt", "node.crt"), (f"{node}.key", "node.key")):
            shutil.copy(self.path("certificates", name), os.path.join(folder, to))
        with open(os.path.join(folder, "agent.yml"), "w", encoding="utf-8") as f:
            f.write(AGENT.format(port=self.agent_port, folder=folder, ec2=self.ec2_port, instance=self.instances[n]))
        script = 'mount --bind "$1/flocker" /flocker && mount --make-shared /flocker && exec "$2" -c "$1/agent.yml" --state-dir="$1/state"'
        self.start(f"agent-{n}", ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", folder,
                                  os.path.join(self.o.agents or BIN, "flocker-agent")])

    # --- talking ---------------------------------------------------------------------------------------------------

    def rest(self, method, path, body=None):
        context = ssl.create_default_context(cafile=self.path("certificates", "cluster.crt"))
        context.check_hostname = False
        context.load_cert_chain(self.path("certificates", "user.crt"), self.path("certificates", "user.key"))
        if not getattr(self, "connection", None):
            self.connection = http.client.HTTPSConnection("127.0.0.1", self.rest_port, context=context, timeout=60)
        self.connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 201):
            raise NotMeasured(f"{method} {path}: {answer.status} {text[:200]}")
        return json.loads(text)

    def ec2_control(self, method, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.ec2_port, timeout=60)
        c.request(method, "/control", json.dumps(body) if body is not None else None)
        text = c.getresponse().read()
        c.close()
        return json.loads(text)

    def calls(self):
        return self.ec2_control("GET")["calls"]

    def wait(self, test, what, timeout):
        end = time.monotonic() + timeout
        while not test():
            if time.monotonic() > end:
                raise NotMeasured(f"{what}: not within {timeout} s; {self.log('agent-0')[-400:]}")
            time.sleep(0.5)

    # --- what is measured ------------------------------------------------------------------------------------------

    def others_volumes(self, cluster, n):
        """Volumes of the cluster that nobody uses."""
        made = [{"AvailabilityZone": "eu-west-1a", "Size": "1", "VolumeType": "gp3",
                 "Tags": {"flocker-metadata-version": "1", "flocker-cluster-id": cluster,
                          "flocker-dataset-id": f"{i:08x}-0000-4000-8000-000000000000"}} for i in range(1, n + 1)]
        self.ec2_control("POST", {"make": made})

    def memory(self):
        total = 0
        for p in self.processes:
            with open(f"/proc/{p.pid}/smaps_rollup", encoding="ascii", errors="replace") as f:
                total += next(int(line.split()[1]) for line in f if line.startswith("Private_Dirty"))
        return total

    def run(self):
        nodes = self.certificates()
        self.cloud()
        self.control()
        shown = subprocess.run([os.path.join(BIN, "flocker-ca"), "show", self.path("certificates", "cluster.crt")], capture_output=True,
                               text=True, check=True).stdout
        cluster = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", shown)[0]
        self.others_volumes(cluster, self.o.volumes - self.o.mounted)
        for n, node in enumerate(nodes):
            self.agent(n, node)
        self.wait(lambda: len(self.rest("GET", "/v1/state/nodes")) == self.o.nodes, "all agents are there", 300)
        start = sum(self.calls().values())
        say(f"{self.o.nodes} agents, {self.memory() // 1024} MiB of private memory; {start} calls to start")
        begun = time.monotonic()
        for i in range(self.o.mounted):
            self.rest("POST", "/v1/configuration/datasets", {"primary": nodes[i % len(nodes)], "maximum_size": GIB})
        self.wait(lambda: sum("path" in d for d in self.rest("GET", "/v1/state/datasets")) == self.o.mounted,
                  f"{self.o.mounted} datasets are mounted", 600)
        created = sum(self.calls().values()) - start
        say(f"{self.o.mounted} volumes mounted with {created} calls in {time.monotonic() - begun:.1f} s; idle for {SETTLE_S} s, then {self.o.seconds} s are counted")
        time.sleep(SETTLE_S)
        self.ec2_control("POST", {"forget_calls": True})
        time.sleep(self.o.seconds)
        calls = self.calls()
        idle = sum(calls.values())
        return emit("idle_api_calls", idle * 3600 / self.o.seconds, "calls an hour", goal=GOAL, nodes=self.o.nodes, volumes=self.o.volumes,
                    mounted=self.o.mounted, counted=calls, seconds=self.o.seconds, to_start=start, to_create=created)


def measure(**given):
    options = argparse.Namespace(**{"nodes": 100, "volumes": 1000, "mounted": 100, "seconds": 600, "agents": None, "call_budget": "20,500", **given})
    cluster = Cluster(options)
    try:
        return cluster.run()
    finally:
        cluster.down()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nodes", type=int, default=100)
    p.add_argument("--volumes", type=int, default=1000, help="in the account, of this cluster")
    p.add_argument("--mounted", type=int, default=100, help="so many of them are mounted on the nodes")
    p.add_argument("--seconds", type=int, default=600, help="so long the calls are counted: best a multiple of 300")
    p.add_argument("--call-budget", default="20,500", metavar="RATE,BURST", help="of the control service")
    p.add_argument("--agents", metavar="DIR", help="where the agents' program is (another version's); else build/bin")
    if os.environ.get("FLOCKER_BENCH_NETNS") != "1":
        script = 'ip link set lo up && mount -t sysfs sysfs /sys && exec "$@"'
        os.execvpe("unshare", ["unshare", "-n", "-m", "sh", "-c", script, "sh", sys.executable, os.path.realpath(__file__), *sys.argv[1:]],
                   {**os.environ, "FLOCKER_BENCH_NETNS": "1"})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    try:
        return 0 if measure(**vars(p.parse_args())) else 1
    except NotMeasured as e:
        say(str(e))
        return 2


if __name__ == "__main__":
    sys.exit(main())
