"""flocker-deploy on real Docker: the original's tutorial, Compose files, plans, and that the same files change nothing."""

import json
import os
import re
import shlex
import subprocess

import pytest

from cli_programs import bin_dir
from lab import CHECKOUT, wait_until
from volumes import digest, fill, volume

CLUSTER = {"nodes": 2, "backend": ["btrfs", "loopback"], "docker": True, "images": ["busybox"]}
ONLY = {"loopback": ["test_tutorial"]}
IMAGE = "flocker-lab/busybox:1"
DONE = ("The cluster configuration has been updated. It may take a short while for changes to take effect, in particular if "
        "Docker images need to be pulled.\n")
# The first process of a container is sent signals that it did not ask for in vain: this one ends when it is told to.
SLEEP = """sh -c 'trap "exit 0" TERM; sleep 1000000 & wait'"""


class Deploy:
    """Runs flocker-deploy as a user on the client host would, in a folder of its own."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        (folder / "shop").mkdir()

    def write(self, **files):
        """`application_yml="..."`: writes shop/application.yml; {h1} in the text is that host's address."""
        for name, text in files.items():
            for host in ("h1", "h2"):
                text = text.replace("{%s}" % host, self.cluster.address(host))
            (self.folder / "shop" / name.replace("_yml", ".yml")).write_text(text)

    def run(self, *words, timeout=150, **env):
        host = self.cluster.variables["FLOCKER_CONTROL_SERVICE"]
        port = self.cluster.variables["FLOCKER_CONTROL_PORT"]
        words = [bin_dir() / "flocker-deploy", "-p", port, "-c", self.cluster.variables["FLOCKER_CERTS_PATH"], host, *words]
        script = "cd {} && {} exec {}".format(shlex.quote(str(self.folder / "shop")),
                                              " ".join(f"{k}={shlex.quote(v)}" for k, v in env.items()),
                                              shlex.join(map(str, words)))
        return subprocess.run([os.path.join(CHECKOUT, "lab", "cluster"), "--dir", self.cluster.directory, "exec", "client",
                               "sh", "-c", script],
                              capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout)

    def ok(self, *words, **env):
        done = self.run(*words, **env)
        assert done.returncode == 0, done
        return done.stdout

    def plan(self, *words):
        """What would change, as (action, what, name, from, to): hosts by their names."""
        hosts = {self.cluster.node(h): h for h in ("h1", "h2")}
        changes = json.loads(self.ok("--plan", "-o", "json", *words))["changes"]
        return {(c["action"], c["kind"], c["name"], hosts.get(c["from"]), hosts.get(c["to"])) for c in changes}


@pytest.fixture
def deploy(cluster, tmp_path):
    yield Deploy(cluster, tmp_path)
    assert cluster.api.call("POST", "/v1/configuration/_compose", {
        "applications": {"version": 1, "applications": {}}, "deployment": {"version": 1, "nodes": {}}}).status == 200
    wait_until(lambda: cluster.api.container_states() == [], "no container", 60)


def docker(cluster, host, *words):
    return cluster.run(host, "docker", *words)


def instances(cluster):
    """Docker's ids of our containers, by name, and when each was started."""
    found = {}
    for host in ("h1", "h2"):
        for line in docker(cluster, host, "ps", "--no-trunc", "--format", "{{.Names}} {{.ID}}").splitlines():
            name, number = line.split()
            found[name] = (number, docker(cluster, host, "inspect", "-f", "{{.State.StartedAt}}", number).strip())
    return found


def tag(cluster):
    """Changes with any change of the configuration."""
    return cluster.api.call("GET", "/v1/configuration/datasets").headers["X-Configuration-Tag"]


APPLICATION = """
version: 1
applications:
  mongodb-example:
    image: "%s"
    ports: [{internal: 27017, external: 27017}]
    volume: {mountpoint: /data, maximum_size: "1G"}
  mongodb-client:
    image: "%s"
    links: [{local_port: 27017, remote_port: 27017, alias: mongo}]
    environment: {NAME: value}
    restart_policy: {name: never}
""" % (IMAGE, IMAGE)


@pytest.mark.deadline(240)
def test_tutorial(cluster, deploy):
    """A database on one host and its client on the other; then another deployment file moves it, with its data."""
    deploy.write(application_yml=APPLICATION,
                 deployment_yml='version: 1\nnodes:\n  "{h1}": ["mongodb-example"]\n  "{h2}": ["mongodb-client"]\n',
                 moved_yml='version: 1\nnodes:\n  "{h1}": []\n  "{h2}": ["mongodb-client", "mongodb-example"]\n')
    first = ("deployment.yml", "application.yml")
    assert deploy.plan(*first) == {("create", "dataset", "mongodb-example", None, "h1"),
                                   ("create", "container", "mongodb-example", None, "h1"),
                                   ("create", "container", "mongodb-client", None, "h2")}
    assert cluster.api.containers() == []  # a plan changes nothing
    assert deploy.ok(*first) == DONE
    dataset = [d for d in cluster.api.datasets() if not d["deleted"]][0]
    assert (dataset["metadata"], dataset["maximum_size"]) == ({"name": "mongodb-example"}, 1 << 30)
    cluster.wait_mounted(dataset["dataset_id"], "h1")
    fill(volume(cluster, "h1", dataset["dataset_id"]))
    content = digest(volume(cluster, "h1", dataset["dataset_id"]))
    # The same files again.
    before = tag(cluster)
    assert deploy.plan(*first) == set()
    assert deploy.ok("--plan", *first) == "Nothing would change.\n"
    assert deploy.ok(*first) == DONE
    assert tag(cluster) == before
    # Only the deployment file is another.
    second = ("moved.yml", "application.yml")
    assert deploy.plan(*second) == {("move", "dataset", "mongodb-example", "h1", "h2"),
                                    ("move", "container", "mongodb-example", "h1", "h2")}
    text = deploy.ok("--plan", *second)
    assert "moves, up to 1.0G" in text and text.endswith("2 changes; the data of 1 dataset would move.\n")
    assert tag(cluster) == before
    assert deploy.ok(*second) == DONE
    cluster.wait_mounted(dataset["dataset_id"], "h2")
    assert digest(volume(cluster, "h2", dataset["dataset_id"])) == content


COMPOSE = """
x-common: &common
  restart: always
  labels: {tier: "${TIER:-none}"}

services:
  web:
    <<: *common
    image: flocker-lab/busybox:${TAG:?which}
    command: sh -c 'mkdir /www && echo "$$GREETING from $$FROM_FILE" > /www/index.html; httpd -p 80 -h /www;
      trap "exit 0" TERM; sleep 1000000 & wait'
    environment:
      GREETING: hello
    env_file: [web.env]
    ports: ["8080:80"]
    links: ["db:database"]
    depends_on:
      db: {condition: service_started}
    x-flocker-node: "{h1}"
    deploy: {resources: {limits: {memory: 64m}}}
  db:
    <<: *common
    image: flocker-lab/busybox:1
    entrypoint: ["sh", "-c"]
    command: ["mkdir -p /data/www; httpd -p 5432 -h /data/www; trap 'exit 0' TERM; sleep 1000000 & wait"]
    ports: ["5432:5432"]
    volumes: ["data:/data"]
    x-flocker-node: "{h1}"
  worker:
    image: flocker-lab/busybox:1
    command: sh -c 'trap "exit 0" TERM; sleep 1000000 & wait'
    stop_grace_period: 20s
    volumes:
      - {type: volume, source: queue, target: /queue}
    x-flocker-node: "{h2}"

volumes:
  data: {x-flocker-size: 1G}
  queue:
"""


@pytest.mark.deadline(300)
def test_three_tiers(cluster, deploy):
    """A Compose file: variables, files of variables, merge keys, volumes; waited for, changed, moved."""
    deploy.write(compose_yml=COMPOSE, **{".env": "TAG=1\nTIER=front\n", "web.env": "FROM_FILE=file\nGREETING=lost\n"})
    assert deploy.ok("--wait", "compose.yml") == DONE + "All is as wanted.\n"
    datasets = {d["metadata"]["name"]: d for d in cluster.api.datasets() if not d["deleted"]}
    assert {n: d.get("maximum_size") for n, d in datasets.items()} == {"shop_data": 1 << 30, "shop_queue": None}
    web = [c for c in cluster.api.containers() if c["name"] == "web"][0]
    assert web["environment"] == {"GREETING": "hello", "FROM_FILE": "file"} and web["labels"] == {"tier": "front"}
    assert web["memory_limit"] == 64 << 20 and web["restart_policy"] == {"name": "always"}
    assert web["links"] == [{"alias": "database", "local_port": 5432, "remote_port": 5432}]
    page = cluster.run("h1", "curl", "-sS", "--max-time", "10", f"http://{cluster.address('h1')}:8080/")
    assert page == "hello from file\n"
    # The same file again: no revision is used, and no container notices.
    before, running = tag(cluster), instances(cluster)
    assert len(running) == 3
    assert deploy.ok("--wait", "compose.yml") == DONE + "All is as wanted.\n"
    assert deploy.ok("--plan", "compose.yml") == "Nothing would change.\n"
    assert (tag(cluster), instances(cluster)) == (before, running)
    # One service has another command, and the database moves with its data.
    data = datasets["shop_data"]["dataset_id"]
    fill(volume(cluster, "h1", data, "www"))
    content = digest(volume(cluster, "h1", data, "www"))
    deploy.write(compose_yml=COMPOSE.replace("20s", "30s"),
                 deployment_yml='version: 1\nnodes:\n  "{h2}": [db]\n')
    assert deploy.plan("deployment.yml", "compose.yml") == {("move", "dataset", "shop_data", "h1", "h2"),
                                                            ("move", "container", "db", "h1", "h2"),
                                                            ("change", "container", "worker", "h2", "h2")}
    assert deploy.ok("--wait", "deployment.yml", "compose.yml").endswith("All is as wanted.\n")
    assert digest(volume(cluster, "h2", data, "www")) == content
    after = instances(cluster)
    web_name = [n for n in running if n.endswith("web")][0]
    assert after[web_name] == running[web_name]
    assert all(after[n] != running[n] for n in running if n != web_name)
    # Without the worker: it goes, its dataset is dropped, its data stay; put back, it has them again.
    queue = datasets["shop_queue"]["dataset_id"]
    fill(volume(cluster, "h2", queue))
    kept = digest(volume(cluster, "h2", queue))
    without = COMPOSE[:COMPOSE.index("  worker:")] + COMPOSE[COMPOSE.index("volumes:\n  data"):]
    deploy.write(compose_yml=without)
    assert deploy.plan("deployment.yml", "compose.yml") == {("drop", "dataset", "shop_queue", "h2", None),
                                                            ("remove", "container", "worker", "h2", None)}
    assert deploy.ok("--wait", "deployment.yml", "compose.yml").endswith("All is as wanted.\n")
    deploy.write(compose_yml=COMPOSE)
    assert ("return", "dataset", "shop_queue", "h2", "h2") in deploy.plan("deployment.yml", "compose.yml")
    assert deploy.ok("--wait", "deployment.yml", "compose.yml").endswith("All is as wanted.\n")
    assert digest(volume(cluster, "h2", queue)) == kept


def test_spread(cluster, deploy):
    """Balanced over the nodes; what is there stays when services are added, whatever their names."""
    service = f"  {{}}:\n    image: {IMAGE}\n    command: {SLEEP}\n"

    def places():
        hosts = {cluster.node(h): h for h in ("h1", "h2")}
        return {c["name"]: hosts[c["node_uuid"]] for c in cluster.api.containers()}
    deploy.write(compose_yml="services:\n" + "".join(service.format(n) for n in ("bb", "cc", "dd")))
    assert deploy.ok("--spread", "--wait", "compose.yml") == DONE + "All is as wanted.\n"
    first = places()
    assert sorted(first) == ["bb", "cc", "dd"] and set(first.values()) == {"h1", "h2"}
    deploy.write(compose_yml="services:\n" + "".join(service.format(n) for n in ("aa", "bb", "cc", "dd")))
    assert deploy.ok("--spread", "--wait", "compose.yml") == DONE + "All is as wanted.\n"
    second = places()
    assert {n: second[n] for n in first} == first
    assert sorted(second.values()) == ["h1", "h1", "h2", "h2"]


def test_wait_says_why(cluster, deploy):
    """What does not become as wanted in time is named, with its reasons, each."""
    deploy.write(compose_yml=f"services:\n  good:\n    image: {IMAGE}\n    command: {SLEEP}\n"
                             "    x-flocker-node: '{h1}'\n"
                             f"  job:\n    image: {IMAGE}\n    command: 'true'\n    restart: 'no'\n    x-flocker-node: '{{h1}}'\n"
                             "  wrong:\n    image: flocker-lab/no-such-image:1\n    x-flocker-node: '{h1}'\n")
    done = deploy.run("--wait", "--timeout=20", "compose.yml")
    assert (done.returncode, done.stdout) == (1, DONE)
    head, _, rest = done.stderr.partition("Not everything is as wanted:\n")
    assert head or rest
    assert "  container wrong: not running: " in rest and "flocker-lab/no-such-image:1" in rest, done.stderr
    assert "container good" not in rest and "container job" not in rest  # that has done its work


def test_documented_examples(cluster, deploy):
    """docs/deploy.md: its files, and its commands in order. Only images and addresses are those of the lab."""
    with open(os.path.join(CHECKOUT, "docs", "deploy.md"), encoding="utf-8") as f:
        blocks = re.findall(r"```(yaml)?\n(.*?)```", f.read(), re.S)
    images, commands = {"postgres:16", "shop:3", "shop:4", "redis:7"}, 0
    for image in images:
        for host in ("h1", "h2"):
            docker(cluster, host, "tag", IMAGE, image)
    for kind, text in blocks:
        text = text.replace("10.20.0.11", "{h1}").replace("10.20.0.12", "{h2}")
        if kind:
            name = re.match(r"# (\S+)\.yml\n", text)[1]
            deploy.write(**{f"{name}_yml": text})
            continue
        for line in re.findall(r"^\$ (.*)$", text, re.M):
            words = shlex.split(line)
            env = dict(w.split("=", 1) for w in words if re.match(r"[A-Z_]+=", w))
            words = [w for w in words[len(env) + 1:] if w != "control.example.net"]
            if "--wait" in words:  # what always runs ends at once with these images, and is started again
                done = deploy.run("--wait", "--timeout=5", *words[2:])
                assert done.returncode in (0, 1) and done.stdout.startswith(DONE), done
            else:
                assert deploy.ok(*words, **env)
            commands += 1
    assert commands == 6
    assert {c["image"] for c in cluster.api.containers()} == {"postgres:16", "shop:4", "redis:7"}
    assert {d["metadata"]["name"] for d in cluster.api.datasets() if not d["deleted"]} == {"shop_data", "shop_cache"}


def test_refusals(cluster, deploy):
    """The server's sentences as they are; nothing changes."""
    deploy.write(application_yml=APPLICATION, deployment_yml='version: 1\nnodes:\n  "{h1}": ["nobody"]\n',
                 compose_yml="services:\n  web:\n    image: x\n    privileged: true\n    networks: [a]\n",
                 nowhere_yml="services:\n  web: {image: x}\n")
    before = tag(cluster)

    def refused(text, *words):
        for more in ([], ["--plan"]):
            done = deploy.run(*more, *words)
            assert (done.returncode, done.stdout, done.stderr) == (1, "", text + "\n")
    refused(f"Node {cluster.address('h1')} has a config error. Unrecognised application name: nobody.",
            "deployment.yml", "application.yml")
    refused("services.web.privileged, services.web.networks (services reach each other by links and by ports) are not "
            "supported.", "--spread", "compose.yml")
    refused("services.web: has no place; name it in the deployment file, give it x-flocker-node, or use --spread.",
            "nowhere.yml")
    assert tag(cluster) == before
