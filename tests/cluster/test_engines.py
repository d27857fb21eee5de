"""Other container engines than the machine's Docker: the next Debian's, and podman by its Docker-compatible socket."""

import time

import pytest

from lab import wait_until

ENGINES = ["docker-26", "podman"]
LONG = True
IMAGE = "flocker-lab/busybox:1"
# Ends at once when asked to.
SERVE = ["sh", "-c", "trap 'exit 0' TERM; echo line >>/data/index.html; httpd -p 80 -h /data; while :; do sleep 0.1; done"]


def page(cluster, host):
    return cluster.run("client", "wget", "-qO-", "-T", "3", f"http://{cluster.address(host)}:8080/", check=False)


def is_absent(cluster, name):
    return all(c["name"] != name for c in cluster.api.container_states())


@pytest.mark.deadline(400)
@pytest.mark.parametrize("engine", ENGINES)
def test_life_of_a_container(make_cluster, engine):
    """Start with a volume and a port, move with its data, agent and engine restarted, restart policy, deletion."""
    cluster = make_cluster(nodes=2, backend="btrfs", docker=True, images=["busybox"], options=["--engine", engine])
    dataset = cluster.api.create_dataset(cluster.node("h1"))
    web = {"volumes": [{"dataset_id": dataset, "mountpoint": "/data"}], "ports": [{"internal": 80, "external": 8080}],
           "command_line": SERVE, "environment": {"A": "b"}, "memory_limit": 64 << 20}
    cluster.api.create_container(cluster.node("h1"), "web", IMAGE, **web)
    cluster.wait_container("web", "h1")
    wait_until(lambda: page(cluster, "h1") == "line\n", "the page from h1")

    cluster.api.move_container("web", cluster.node("h2"))
    cluster.wait_container("web", "h2")
    wait_until(lambda: page(cluster, "h2") == "line\nline\n", "both lines from h2")
    assert cluster.run("h1", "docker", "ps", "-aq").strip() == ""

    # What runs is recognised, and not started again.
    cluster.stop("h2", "agent")
    cluster.start("h2", "agent")
    cluster.wait_nodes(["h1", "h2"])
    cluster.wait_container("web", "h2")
    assert page(cluster, "h2") == "line\nline\n"
    cluster.api.delete_container("web")
    wait_until(lambda: is_absent(cluster, "web"), "web is gone")
    assert cluster.run("h2", "docker", "ps", "-aq").strip() == ""

    # One that ends is started again by the agent, whatever the engine.
    short = {"volumes": [{"dataset_id": dataset, "mountpoint": "/data"}], "restart_policy": {"name": "always"},
             "command_line": ["sh", "-c", "echo x >>/data/lines; sleep 0.2; exit 3"]}
    cluster.api.create_container(cluster.node("h2"), "short", IMAGE, **short)
    wait_until(lambda: len(cluster.shell("h2", f"cat /flocker/{dataset}/lines 2>/dev/null || true").split()) >= 3,
               "three runs of a container that ends")
    cluster.api.delete_container("short")
    wait_until(lambda: is_absent(cluster, "short"), "short is gone")
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)


@pytest.mark.deadline(400)
@pytest.mark.parametrize("engine", ENGINES)
def test_errors_are_told_apart(make_cluster, engine):
    """Engines tell what is wrong in words of their own."""
    cluster = make_cluster(nodes=1, backend="fake", docker=True, images=["busybox"], options=["--engine", engine])
    node = cluster.node("h1")
    cluster.api.create_container(node, "missing", "127.0.0.1:5001/lab/none:1")
    cluster.api.create_container(node, "first", IMAGE, ports=[{"internal": 80, "external": 8080}],
                                 command_line=["sleep", "1000"])
    cluster.wait_container("first", "h1")
    cluster.api.create_container(node, "second", IMAGE, ports=[{"internal": 80, "external": 8081}],
                                 command_line=["/no/such/program"])
    cluster.shell("h1", "setsid /usr/bin/python3 -m http.server 8099 >/dev/null 2>&1 </dev/null &")
    cluster.shell("h1", "for i in $(seq 100); do ss -ltn | grep -q :8099 && exit; sleep 0.1; done; exit 1")
    cluster.api.create_container(node, "third", IMAGE, ports=[{"internal": 80, "external": 8099}])
    for name, code in (("missing", "image-pull-failed"), ("second", "start-failed"), ("third", "port-in-use")):
        def says(name=name, code=code):
            reason = cluster.api.expect("GET", f"/v1/state/containers/{name}", status=(200,))["reason"]
            return reason is not None and reason["code"] == code
        wait_until(says, f"{name}: {code}")
    # What fails to start leaves nothing, and what happens meanwhile to one is no failure to look at the others.
    assert "cannot look at container" not in cluster.shell("h1", f"cat {cluster.path('h1', 'log', 'agent')}")


@pytest.mark.deadline(400)
@pytest.mark.parametrize("engine", ENGINES)
def test_settings_and_states(make_cluster, engine):
    """More settings than version 1 had, and what is told of how a container is."""
    cluster = make_cluster(nodes=1, backend="fake", docker=True, images=["busybox"], options=["--engine", engine])
    node = cluster.node("h1")

    def detail(name):
        return cluster.api.expect("GET", f"/v1/state/containers/{name}", status=(200,))
    settings = {"entrypoint": ["sh", "-c", "pwd; id -u; exec \"$@\"", "--"], "user": "70", "working_dir": "/tmp",
                "stop_signal": "SIGTERM", "stop_grace_period": 3, "cpus": 0.5, "labels": {"tier": "web"},
                "healthcheck": {"test": ["CMD-SHELL", "true"], "interval": 1, "timeout": 5},
                "command_line": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]}
    cluster.api.create_container(node, "full", IMAGE, **settings)
    cluster.api.create_container(node, "after", IMAGE, command_line=["sh", "-c", "echo so long; exit 4"],
                                 depends_on=[{"name": "full"}])
    cluster.wait_container("full", "h1")
    assert cluster.run("h1", "docker", "logs", "flocker--full").split() == ["/tmp", "70"]
    label = cluster.run("h1", "docker", "inspect", "--format", "{{.Config.Labels.tier}}", "flocker--full")
    assert label.strip() == "web"
    if engine != "podman":  # which has systemd ask for the health; there is none in the lab
        wait_until(lambda: detail("full")["health"] == "healthy", "full is healthy")

    def has_ended():
        after = detail("after")
        return after["exit_code"] == 4 and after["reason"] and "so long" in after["reason"]["text"]
    wait_until(has_ended, "after has ended, and its last words are told")
    before = cluster.run("h1", "docker", "inspect", "--format", "{{.State.StartedAt}}", "flocker--full")
    cluster.stop("h1", "agent")
    cluster.start("h1", "agent")
    cluster.wait_nodes(["h1"])
    time.sleep(2)
    assert cluster.run("h1", "docker", "inspect", "--format", "{{.State.StartedAt}}", "flocker--full") == before
    for name in ("after", "full"):
        cluster.api.delete_container(name)
        wait_until(lambda name=name: is_absent(cluster, name), f"{name} is gone")
