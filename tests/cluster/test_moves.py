"""Containers and their datasets on the move: with real Docker, through crashes, and held up by strangers."""

import pytest

from conftest import FULL
from lab import WaitTimeout, holds, wait_until
from test_crashes import go_on, start_pausing, wait_paused
from volumes import (Guard, container_state, create, delete, digest, fill, is_mounted, state, volume,
                     wait_reason, wait_settled)

CLUSTER = {"nodes": 2, "backend": ["btrfs", "zfs"], "docker": True, "images": ["busybox"]}
# Not the one in which a host dies: zfs-fuse then loses large files that were synced a moment before (it replays its log in part).
ONLY = {"zfs": ["test_container_moves_with_its_data", "test_kill_while_moving"]}
HOSTS = ["h1", "h2"]
IMAGE = "flocker-lab/busybox:1"
# Counts on from where the file ends; each number is synced before the next. Ends at once when told to.
COUNT = ("trap 'exit 0' TERM; n=$(tail -n 1 /data/log 2>/dev/null); n=${n:-0}; "
         "while :; do n=$((n + 1)); echo $n >>/data/log; sync /data/log; sleep 0.02; done")


def numbers(cluster, host, dataset):
    with open(volume(cluster, host, dataset, "log"), encoding="ascii") as f:
        return [int(line) for line in f.read().splitlines()]


def docker(cluster, host, *words, check=True):
    return cluster.run(host, "docker", *words, check=check).strip()


def docker_names(cluster, host):
    return docker(cluster, host, "ps", "-a", "--format", "{{.Names}}").split()


def identity(cluster, host, name):
    """Which container it is, since when, and how often Docker started it."""
    found = [n for n in docker_names(cluster, host) if name in n]
    assert len(found) == 1, found
    return docker(cluster, host, "inspect", "-f", "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}", found[0])


def reason(cluster, name):
    told = container_state(cluster, name)["reason"]
    return told and told["code"]


class App:
    """A container that counts, on a dataset of its own."""

    def __init__(self, cluster, name, host="h1", script=COUNT, **settings):
        self.cluster = cluster
        self.name = name
        self.dataset = create(cluster, host)
        fill(volume(cluster, host, self.dataset), big=2 << 20)
        self.before = digest(volume(cluster, host, self.dataset))
        cluster.api.create_container(cluster.node(host), name, IMAGE, command_line=["sh", "-c", script],
                                     volumes=[{"dataset_id": self.dataset, "mountpoint": "/data"}], **settings)
        self.wait_counting(host)

    def wait_counting(self, host, timeout=40):
        self.cluster.wait_container(self.name, host, timeout)
        first = wait_until(lambda: numbers(self.cluster, host, self.dataset)[-1:], f"numbers on {host}", 20, 0.05)[0]
        wait_until(lambda: numbers(self.cluster, host, self.dataset)[-1] > first, f"new numbers on {host}", 20, 0.05)

    def check(self, host, at_least):
        """No number is lost or doubled, no other byte changed."""
        found = numbers(self.cluster, host, self.dataset)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= at_least
        assert digest(volume(self.cluster, host, self.dataset)) == self.before

    def remove(self):
        if any(c["name"] == self.name for c in self.cluster.api.containers()):
            self.cluster.api.delete_container(self.name)
        wait_until(lambda: all(c["name"] != self.name for c in self.cluster.api.container_states()),
                   f"container {self.name} gone", 40)
        delete(self.cluster, self.dataset, HOSTS)


@pytest.fixture(name="app")
def app_fixture(cluster, request):
    made = App(cluster, request.node.originalname.replace("test_", "").replace("_", "-"))
    yield made
    for host in HOSTS:
        go_on(cluster, host)
        cluster.start(host)
    cluster.start("control")
    made.remove()


class Tail:
    """The last number that could be read on a host before the dataset left it."""

    def __init__(self, cluster, dataset, host):
        self.cluster, self.dataset, self.host, self.last = cluster, dataset, host, 0

    def __call__(self):
        try:
            self.last = max([self.last, *numbers(self.cluster, self.host, self.dataset)[-1:]])
        except (OSError, ValueError):
            pass


def move(app, source, destination, during=lambda: None, timeout=40):
    """Moves the container and follows it; returns the last number seen at the source."""
    cluster, tail = app.cluster, Tail(app.cluster, app.dataset, source)
    with Guard(cluster, app.dataset, HOSTS):
        cluster.api.move_container(app.name, cluster.node(destination))
        during()

        def arrived():
            tail()
            return any(c["name"] == app.name and c["node_uuid"] == cluster.node(destination) and c["running"]
                       for c in cluster.api.container_states())
        wait_until(arrived, f"{app.name} on {destination}", timeout, 0.02)
        wait_settled(cluster, app.dataset, destination, [source])
    app.wait_counting(destination)
    return tail.last


def test_container_moves_with_its_data(cluster, app):
    last = move(app, "h1", "h2")
    assert last > 1
    app.check("h2", last)
    assert not [n for n in docker_names(cluster, "h1") if app.name in n]
    shown = next(c for c in cluster.api.container_states() if c["name"] == app.name)
    assert shown["node_uuid"] == cluster.node("h2")
    assert shown["volumes"] == [{"dataset_id": app.dataset, "mountpoint": "/data"}]
    # The old container had ended before the new one began.
    assert next(d for d in cluster.api.datasets() if d["dataset_id"] == app.dataset)["primary"] == cluster.node("h2")
    last = move(app, "h2", "h1")
    app.check("h1", last)
    cluster.api.delete_container(app.name)
    wait_until(lambda: app.name not in [c["name"] for c in cluster.api.container_states()], "the container gone", 20)
    assert is_mounted(cluster, "h1", app.dataset)
    app.check("h1", last)


def test_container_outlives_agent_and_control(cluster, app):
    before = identity(cluster, "h1", app.name)
    for host, process in (("h1", "agent"), ("control", "control"), ("h1", "agent")):
        cluster.kill(host, process)
        sofar = numbers(cluster, "h1", app.dataset)[-1]
        wait_until(lambda: numbers(cluster, "h1", app.dataset)[-1] > sofar, f"writes without {process}", 10, 0.05)
        cluster.start(host, process)
        app.wait_counting("h1")
        assert identity(cluster, "h1", app.name) == before
    # Both know the container again: it can be moved.
    app.check("h2", move(app, "h1", "h2"))


def test_container_is_started_again_after_dockerd(cluster, app):
    before = identity(cluster, "h1", app.name)
    cluster.stop("h1", "docker")
    wait_until(lambda: container_state(cluster, app.name)["reason"], "a reason without dockerd", 20)
    last = numbers(cluster, "h1", app.dataset)[-1]
    cluster.start("h1", "docker")
    wait_until(lambda: numbers(cluster, "h1", app.dataset)[-1] > last, "numbers after dockerd came back", 40)
    app.wait_counting("h1")
    assert identity(cluster, "h1", app.name) != before
    app.check("h1", last)


@pytest.mark.deadline(240 if FULL else 60)
def test_cut_off_container_runs_on(cluster, app):
    before = identity(cluster, "h1", app.name)
    cluster.partition("h1")
    try:
        with Guard(cluster, app.dataset, HOSTS):
            cluster.api.move_container(app.name, cluster.node("h2"))
            if FULL:  # a silent peer is noticed after a minute or two
                wait_reason(cluster, app.dataset, "owner-disconnected", 200)
            sofar = numbers(cluster, "h1", app.dataset)[-1]
            holds(lambda: is_mounted(cluster, "h1", app.dataset) and not is_mounted(cluster, "h2", app.dataset),
                  "nobody takes over", 2.0)
            assert numbers(cluster, "h1", app.dataset)[-1] > sofar
            assert identity(cluster, "h1", app.name) == before
    finally:
        cluster.heal("h1")
    with Guard(cluster, app.dataset, HOSTS):
        wait_settled(cluster, app.dataset, "h2", ["h1"], 60)
    app.wait_counting("h2")
    app.check("h2", sofar)


def test_host_with_a_container_dies_and_comes_back(cluster, app):
    last = numbers(cluster, "h1", app.dataset)[-1]
    cluster.kill("h1")
    cluster.start("h1")
    wait_settled(cluster, app.dataset, "h1", ["h2"], 60)
    wait_until(lambda: numbers(cluster, "h1", app.dataset)[-1] > last, "numbers after the power came back", 40)
    app.wait_counting("h1")
    app.check("h1", last)


STOP_AND_START = [("h1", when, "stop", victim) for when in ("before", "after") for victim in HOSTS + ["control"]]
STOP_AND_START += [("h2", when, "start", victim) for when in ("before", "after") for victim in HOSTS + ["control"]]
USUAL = {("h1", "before", "stop", "control"), ("h1", "after", "stop", "h1"), ("h2", "before", "start", "h2"),
         ("h2", "after", "start", "h2")}
WHO = {"h1": "source", "h2": "destination", "control": "control"}


@pytest.mark.parametrize(("paused", "when", "step", "victim"), [
    pytest.param(*c, id=f"{c[1]}-{c[2]}-{WHO[c[3]]}") for c in STOP_AND_START if FULL or c in USUAL])
def test_kill_while_moving(cluster, app, paused, when, step, victim):
    start_pausing(cluster, paused, f"{when}-{step}")

    def kill():
        process = "control" if victim == "control" else "agent"
        wait_paused(cluster, paused)
        cluster.kill(victim, process)
        cluster.start(victim, process)
        go_on(cluster, paused)
    app.check("h2", move(app, "h1", "h2", during=kill))
    assert [n for n in docker_names(cluster, "h1") if app.name in n] == []
    assert len([n for n in docker_names(cluster, "h2") if app.name in n]) == 1


@pytest.mark.parametrize(("policy", "script", "starts"), [
    ({"name": "never"}, "echo x >>/data/starts; exit 3", 1),
    ({"name": "on-failure", "maximum_retry_count": 2}, "echo x >>/data/starts; exit 3", 3),
    ({"name": "on-failure", "maximum_retry_count": 2}, "echo x >>/data/starts; exit 0", 1),
    ({"name": "always"}, "echo x >>/data/starts; trap 'exit 0' TERM; "
                         "while test $(wc -l </data/starts) -ge 3; do sleep 0.1; done", 3),
], ids=["never", "on-failure", "on-failure-well", "always"])
def test_restart_policies(cluster, policy, script, starts):
    dataset = create(cluster, "h1")
    name = f"policy-{policy['name']}"
    try:
        cluster.api.create_container(cluster.node("h1"), name, IMAGE, command_line=["sh", "-c", script],
                                     volumes=[{"dataset_id": dataset, "mountpoint": "/data"}], restart_policy=policy)

        def count():
            with open(volume(cluster, "h1", dataset, "starts"), encoding="ascii") as f:
                return len(f.readlines())
        try:
            wait_until(lambda: count() == starts, f"{starts} starts", 30)
        except WaitTimeout as e:
            raise WaitTimeout(f"{e}; {count()} starts; {container_state(cluster, name)}") from None
        if policy["name"] == "always":
            cluster.wait_container(name, "h1")
        else:
            wait_until(lambda: reason(cluster, name) == "container-exited", "the reason", 20)
        holds(lambda: count() == starts, f"{starts} starts and no more", 1.5)
    finally:
        cluster.api.delete_container(name)
        wait_until(lambda: all(c["name"] != name for c in cluster.api.container_states()), f"{name} gone", 40)
        delete(cluster, dataset, HOSTS)


def test_container_waits_for_its_dataset(cluster, app):
    """Between the commit and the mount nothing runs anywhere, and the reason says what is waited for."""
    other = cluster.api.create_dataset(cluster.node("h2"))
    cluster.wait_mounted(other, "h2")
    start_pausing(cluster, "h2", "before-mount")
    cluster.api.move_container(app.name, cluster.node("h2"))
    wait_paused(cluster, "h2")
    # Owned by h2 since the commit, not mounted there: no container anywhere.
    assert state(cluster, app.dataset)["owner"] == cluster.node("h2")
    holds(lambda: not is_mounted(cluster, "h2", app.dataset) and
          not [n for h in HOSTS for n in docker_names(cluster, h) if app.name in n], "no container without data", 1.0)
    assert reason(cluster, app.name) == "waiting-for-dataset"
    go_on(cluster, "h2")
    app.wait_counting("h2")
    delete(cluster, other, HOSTS)


def test_strange_container_blocks_a_move(cluster):
    dataset = create(cluster, "h1")
    fill(volume(cluster, "h1", dataset))
    stranger = docker(cluster, "h1", "run", "-d", "-v", f"/flocker/{dataset}:/data", IMAGE, "sh", "-c", COUNT)
    wait_until(lambda: numbers(cluster, "h1", dataset), "the stranger's numbers", 20)
    pid = docker(cluster, "h1", "inspect", "-f", "{{.State.Pid}}", stranger)
    try:
        with Guard(cluster, dataset, HOSTS):
            cluster.api.move_dataset(dataset, cluster.node("h2"))
            text = wait_reason(cluster, dataset, "volume-busy")
            assert pid in text, text
            last = numbers(cluster, "h1", dataset)[-1]
            wait_until(lambda: numbers(cluster, "h1", dataset)[-1] > last, "the stranger writes on", 10)
            assert is_mounted(cluster, "h1", dataset)
            last = numbers(cluster, "h1", dataset)[-1]
            docker(cluster, "h1", "kill", stranger) # from here on the move may take the volume away at any moment
            wait_settled(cluster, dataset, "h2", ["h1"], 40)
        written = numbers(cluster, "h2", dataset)
        assert written == list(range(1, len(written) + 1)) and len(written) >= last
    finally:
        docker(cluster, "h1", "rm", "-f", stranger)
        delete(cluster, dataset, HOSTS)
