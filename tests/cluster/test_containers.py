"""What containers can have beyond version 1, on real Docker: settings, dependencies, health, exit codes, last words."""

import json
import time

import pytest

from lab import holds, wait_until
from volumes import digest, fill, volume

CLUSTER = {"nodes": 2, "docker": True, "images": ["busybox"]}
IMAGE = "flocker-lab/busybox:1"
RUN_ON = "trap 'exit 0' TERM; sleep 100000 & wait"
SLEEP = ["sh", "-c", RUN_ON]
OTHER_CLUSTER = "0b6f2d9a-44c1-4d7e-9b02-5e6f7a8b9c0d"


def inspect(cluster, host, name):
    return json.loads(cluster.run(host, "docker", "inspect", name))[0]


def detail(cluster, name):
    return cluster.api.expect("GET", f"/v1/state/containers/{name}")


def reason_of(cluster, name):
    reason = detail(cluster, name)["reason"]
    return (reason["code"], reason["text"]) if reason else (None, "")


def wait_reason(cluster, name, code, *words, timeout=30):
    def there():
        now, text = reason_of(cluster, name)
        return text if now == code and all(word in text for word in words) else None
    try:
        return wait_until(there, f"{name}: {code} with {words}", timeout)
    except AssertionError as e:
        raise AssertionError(f"{e}; {reason_of(cluster, name)}") from None


@pytest.fixture(name="make")
def _make(cluster):
    """Makes containers, and removes all that are there at the end."""
    def make(host, name, **settings):
        return cluster.api.create_container(cluster.node(host), name, IMAGE, **{"command_line": SLEEP, **settings})
    yield make
    for one in cluster.api.containers():
        cluster.api.delete_container(one["name"])
    wait_until(lambda: not cluster.api.container_states(), "containers gone")


def test_settings_reach_docker(cluster, make):
    settings = {"entrypoint": ["sh", "-c", "pwd; id -u; id -g; exec \"$@\"", "--"], "command_line": SLEEP, "user": "70:71",
                "working_dir": "/tmp", "stop_signal": "SIGTERM", "stop_grace_period": 7.5, "cpus": 0.5,
                "labels": {"tier": "web", "empty": ""},
                "healthcheck": {"test": ["CMD-SHELL", "true"], "interval": 1, "timeout": 2, "start_period": 3, "retries": 4}}
    shown = make("h1", "full", **settings)
    assert {key: shown[key] for key in settings} == settings
    cluster.wait_container("full", "h1")
    made = inspect(cluster, "h1", "flocker--full")
    config, host = made["Config"], made["HostConfig"]
    assert (config["Entrypoint"], config["Cmd"]) == (settings["entrypoint"], SLEEP)
    assert (config["User"], config["WorkingDir"], config["StopSignal"], config["StopTimeout"]) == ("70:71", "/tmp", "SIGTERM", 8)
    assert config["Labels"]["tier"] == "web" and config["Labels"]["empty"] == "" and len(config["Labels"]["io.flocker.spec"]) == 32
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 10**9, "Timeout": 2 * 10**9,
                                     "StartPeriod": 3 * 10**9, "Retries": 4}
    assert host["NanoCpus"] == 5 * 10**8 and host["RestartPolicy"]["Name"] == "no"
    assert cluster.run("h1", "docker", "logs", "flocker--full").split() == ["/tmp", "70", "71"]
    # What does not use them is shown, and made, as in version 1.
    assert set(make("h1", "plain")) == {"node_uuid", "name", "image", "command_line", "restart_policy"}
    cluster.wait_container("plain", "h1")
    assert "StopTimeout" not in inspect(cluster, "h1", "flocker--plain")["Config"]


def test_grace_is_obeyed(cluster, make):
    """It ignores the signal: killed after its own grace, not after the agent's 60 seconds."""
    make("h1", "deaf", command_line=["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], stop_grace_period=2)
    cluster.wait_container("deaf", "h1")
    began = time.monotonic()
    cluster.api.delete_container("deaf")
    wait_until(lambda: not cluster.api.container_states(), "deaf gone", 30)
    assert 1.5 < time.monotonic() - began < 20


def test_health_is_told(cluster, make):
    make("h1", "ill", healthcheck={"test": ["CMD-SHELL", "test ! -e /tmp/ill"], "interval": 0.5, "retries": 1, "timeout": 5})
    cluster.wait_container("ill", "h1")
    wait_until(lambda: detail(cluster, "ill")["health"] == "healthy", "healthy", 30)
    assert detail(cluster, "ill")["exit_code"] is None
    cluster.run("h1", "docker", "exec", "flocker--ill", "touch", "/tmp/ill")
    wait_until(lambda: detail(cluster, "ill")["health"] == "unhealthy", "unhealthy", 30)
    assert "unhealthy" in cluster.ctl("why", "ill") and "unhealthy" in cluster.ctl("ps")
    cluster.run("h1", "docker", "exec", "flocker--ill", "rm", "/tmp/ill")
    wait_until(lambda: detail(cluster, "ill")["health"] == "healthy", "healthy again", 30)


def test_one_after_the_other(cluster, make):
    """On two hosts: the application waits until the database is healthy and the job has ended well."""
    make("h1", "db", command_line=["sh", "-c", "sleep 2; touch /tmp/ready; " + RUN_ON],
         healthcheck={"test": ["CMD", "test", "-e", "/tmp/ready"], "interval": 0.5, "timeout": 5})
    make("h2", "job", command_line=["sh", "-c", "sleep 1"], depends_on=[{"name": "db", "condition": "healthy"}])
    make("h1", "app", depends_on=[{"name": "db"}, {"name": "job", "condition": "completed"}])
    wait_reason(cluster, "job", "waiting-for-dependency", "container db", timeout=10)
    wait_reason(cluster, "app", "waiting-for-dependency", "container job", timeout=10)
    cluster.wait_container("app", "h1")
    ready, job, app = (inspect(cluster, host, f"flocker--{name}")["State"]
                       for host, name in (("h1", "db"), ("h2", "job"), ("h1", "app")))
    assert ready["Health"]["Status"] == "healthy"
    assert ready["StartedAt"] < job["StartedAt"] < job["FinishedAt"] < app["StartedAt"]
    assert detail(cluster, "job")["exit_code"] == 0
    # Once started it is its own: what it depended on may fall.
    before = inspect(cluster, "h1", "flocker--app")["State"]["StartedAt"]
    cluster.api.delete_container("job")
    cluster.run("h1", "docker", "exec", "flocker--db", "rm", "/tmp/ready")
    wait_until(lambda: detail(cluster, "db")["health"] == "unhealthy", "db unhealthy", 30)
    holds(lambda: inspect(cluster, "h1", "flocker--app")["State"]["StartedAt"] == before, "app runs on", 2)
    cluster.stop("h1", "agent")
    cluster.start("h1", "agent")
    cluster.wait_nodes(["h1", "h2"])
    holds(lambda: inspect(cluster, "h1", "flocker--app")["State"]["StartedAt"] == before, "app runs on", 3)


def test_dependencies_that_cannot_be(cluster, make):
    def refused(name, on, words):
        answer = cluster.api.call("POST", "/v1/configuration/containers", {
            "node_uuid": cluster.node("h1"), "name": name, "image": IMAGE, "depends_on": [{"name": on}]})
        assert answer.status == 409 and words in answer.json()["description"], answer.body
    refused("web", "nobody", "does not exist; create that one first. (nobody)")
    make("h1", "one")
    make("h1", "two", depends_on=[{"name": "one"}])
    cluster.wait_container("two", "h1")
    cluster.api.delete_container("one")
    refused("one", "two", "in a circle")
    cluster.api.move_container("two", cluster.node("h2"))
    cluster.wait_container("two", "h2")  # it was started once
    make("h1", "three", depends_on=[{"name": "two", "condition": "healthy"}])
    wait_reason(cluster, "three", "waiting-for-dependency", "which has no health check")
    cluster.api.delete_container("two")
    wait_reason(cluster, "three", "waiting-for-dependency", "container two, which does not exist")


def compose(cluster, **applications):
    body = {"applications": {"version": 1, "applications": applications},
            "deployment": {"version": 1, "nodes": {cluster.address("h1"): list(applications)}}}
    answer = cluster.api.call("POST", "/v1/configuration/_compose", body)
    assert answer.status == 200, answer.body


def test_changed_settings_make_it_anew_once(cluster, make):
    def seen():
        ids = cluster.run("h1", "docker", "ps", "-aq", "--no-trunc", "--filter", "name=flocker--app").split()
        return ids[0] if len(ids) == 1 else None

    def is_settled(ident):
        return seen() == ident
    compose(cluster, app={"image": IMAGE, "environment": {"A": "1"}})
    first = wait_until(seen, "app made", 30)
    compose(cluster, app={"image": IMAGE, "environment": {"A": "1"}})
    holds(lambda: is_settled(first), "nothing is made anew without a change", 3)
    compose(cluster, app={"image": IMAGE, "environment": {"A": "2"}})
    second = wait_until(lambda: seen() if seen() not in (None, first) else None, "app made anew", 30)
    holds(lambda: is_settled(second), "it is made anew once", 5)
    for process in ("agent", "docker"):
        cluster.stop("h1", process)
        cluster.start("h1", process)
    cluster.wait_nodes(["h1", "h2"])
    assert "A=2" in inspect(cluster, "h1", "flocker--app")["Config"]["Env"]
    compose(cluster)


def test_containers_of_another_cluster(cluster, make):
    """Two clusters on one Docker: each sees its own."""
    labels = [f"io.flocker.cluster={OTHER_CLUSTER}", "io.flocker.container=theirs", "io.flocker.created=5",
              f"io.flocker.era={OTHER_CLUSTER}"]
    words = [word for label in labels for word in ("--label", label)]
    cluster.run("h1", "docker", "run", "-d", "--name", "flocker--theirs", *words, IMAGE, *SLEEP)
    before = inspect(cluster, "h1", "flocker--theirs")
    try:
        make("h1", "ours")
        cluster.wait_container("ours", "h1")
        assert [c["name"] for c in cluster.api.container_states()] == ["ours"]
        make("h1", "theirs")
        wait_reason(cluster, "theirs", "name-taken", "flocker--theirs")
        cluster.api.delete_container("theirs")
        cluster.stop("h1", "agent")
        cluster.start("h1", "agent")
        cluster.wait_nodes(["h1", "h2"])
        cluster.api.delete_container("ours")
        wait_until(lambda: not cluster.api.container_states(), "ours gone", 30)
        after = inspect(cluster, "h1", "flocker--theirs")
        assert (after["Id"], after["State"]["StartedAt"], after["State"]["Running"]) == (
            before["Id"], before["State"]["StartedAt"], True)
    finally:
        cluster.run("h1", "docker", "rm", "-f", "flocker--theirs")


@pytest.mark.deadline(240)
@pytest.mark.parametrize("what", ["docker", None], ids=["docker", "host"])
def test_after_a_restart(cluster, make, what):
    """Of Docker, or of the host: what ran runs again, on its own data, also what depends on it."""
    dataset = cluster.api.create_dataset(cluster.node("h1"))
    cluster.wait_mounted(dataset, "h1")
    make("h1", "db", volumes=[{"dataset_id": dataset, "mountpoint": "/data"}],
         command_line=["sh", "-c", "test -e /data/first || touch /data/first; printf x >>/data/starts; touch /tmp/up; " + RUN_ON],
         healthcheck={"test": ["CMD", "test", "-e", "/tmp/up"], "interval": 0.5, "timeout": 5})
    make("h1", "app", depends_on=[{"name": "db", "condition": "healthy"}])
    cluster.wait_container("app", "h1")
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/starts") == "x"
    before = inspect(cluster, "h1", "flocker--app")["State"]["StartedAt"]
    cluster.kill("h1", what)
    cluster.start("h1", what)
    cluster.wait_nodes(["h1", "h2"])

    def runs_again():
        return inspect(cluster, "h1", "flocker--app")["State"]["StartedAt"] > before
    wait_until(runs_again, "app runs again", 90, tolerate=(OSError, AssertionError))
    cluster.wait_container("db", "h1")
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/starts") == "xx"
    # It did not write where its volume was not yet.
    assert cluster.run("h1", "docker", "exec", "flocker--db", "ls", "/data").split() == ["first", "starts"]
    cluster.api.delete_container("app")
    cluster.api.delete_container("db")
    cluster.api.delete_dataset(dataset)


def test_last_words(cluster, make):
    """They are told with the exit code, without what could harm a terminal."""
    script = "for i in 1 2 3 4 5 6; do echo line $i; done; printf '\\033[31mred\\007\\n'; echo 'no database' >&2; exit 3"
    make("h1", "broken", command_line=["sh", "-c", script], restart_policy={"name": "always"})
    text = wait_reason(cluster, "broken", "crash-loop", "status 3", "no database")
    assert "line 5 | line 6 | red?" in text, text
    assert "line 1" not in text and "\x1b" not in text and "\x07" not in text
    make("h1", "once", command_line=["sh", "-c", "echo so long; exit 9"])
    wait_reason(cluster, "once", "container-exited", "status 9", "so long")
    assert detail(cluster, "once")["exit_code"] == 9
    told = cluster.ctl("why", "once")
    assert "so long" in told and "9" in told


def test_restart_policies(cluster, make):
    """The agent obeys them, whatever Docker would do."""
    dataset = cluster.api.create_dataset(cluster.node("h1"))
    cluster.wait_mounted(dataset, "h1")

    def starts(name):
        return cluster.run("h1", "cat", f"/flocker/{dataset}/{name}", check=False).count("x")
    make("h1", "tries", command_line=["sh", "-c", "printf x >>/data/tries; exit 1"],
         volumes=[{"dataset_id": dataset, "mountpoint": "/data"}],
         restart_policy={"name": "on-failure", "maximum_retry_count": 2})
    make("h1", "well", command_line=["true"], restart_policy={"name": "on-failure"})
    make("h1", "never", command_line=["false"])
    for name, code in (("tries", 1), ("well", 0), ("never", 1)):
        wait_reason(cluster, name, "container-exited", f"status {code}", timeout=60)
    ended = [inspect(cluster, "h1", f"flocker--{name}")["State"]["FinishedAt"] for name in ("well", "never")]
    assert starts("tries") == 3
    holds(lambda: [inspect(cluster, "h1", f"flocker--{name}")["State"]["FinishedAt"] for name in ("well", "never")] == ended
          and starts("tries") == 3, "none is started again", 3)
    cluster.api.delete_container("tries")
    cluster.api.delete_dataset(dataset)


@pytest.mark.deadline(240)
def test_a_job_is_done_once(cluster, make):
    """Not again after a reboot of its host, nor where it is moved; a service that was stopped by that goes on."""
    dataset = cluster.api.create_dataset(cluster.node("h1"))
    cluster.wait_mounted(dataset, "h1")
    make("h1", "job", command_line=["sh", "-c", "printf x >>/data/runs; sync"],
         volumes=[{"dataset_id": dataset, "mountpoint": "/data"}], restart_policy={"name": "never"})
    make("h1", "failed", command_line=["false"])
    make("h1", "service", restart_policy={"name": "never"})
    make("h1", "after", depends_on=[{"name": "job", "condition": "completed"}])
    cluster.wait_container("after", "h1")
    wait_reason(cluster, "job", "container-exited", "status 0")
    time.sleep(11)  # as long as an exit may be that of the host
    cluster.kill("h1")
    cluster.start("h1")
    cluster.wait_nodes(["h1", "h2"])
    before = inspect(cluster, "h1", "flocker--failed")["State"]["FinishedAt"]
    for name in ("service", "after"):  # it depends on what is not there any more, and is not kept waiting
        cluster.wait_container(name, "h1", 90)
    wait_until(lambda: inspect(cluster, "h1", "flocker--failed")["State"]["FinishedAt"] > before, "what failed is tried again", 30)
    wait_reason(cluster, "job", "container-exited", "status 0")
    assert cluster.run("h1", "cat", f"/flocker/{dataset}/runs") == "x"
    cluster.ctl("move-container", "job", "-t", cluster.address("h2"), "--wait")
    cluster.wait_mounted(dataset, "h2")
    wait_reason(cluster, "job", "container-exited", "status 0")
    now = detail(cluster, "job")
    assert (now["state"], now["on"], now["exit_code"]) == ("exited", cluster.node("h2"), 0)
    assert cluster.run("h2", "docker", "ps", "-aq", "--filter", "name=flocker--job") == ""
    holds(lambda: cluster.run("h2", "cat", f"/flocker/{dataset}/runs") == "x", "not run again", 2)
    cluster.api.delete_container("job")
    made = make("h2", "job", command_line=["sh", "-c", "printf y >>/data/runs"],
                volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
    assert "ended" not in made
    wait_until(lambda: cluster.run("h2", "cat", f"/flocker/{dataset}/runs") == "xy", "a new one runs")
    cluster.api.delete_container("job")
    cluster.api.delete_dataset(dataset)


WRITER = """
printf x >>/c/starts; n=$(cat /a/n 2>/dev/null || echo 0); trap 'exit 0' TERM
while :; do
    n=$((n + 1)); for d in /a /a/b /c; do echo $n >>$d/log; done
    echo $n >/a/n.new && mv /a/n.new /a/n; sleep 0.02
done"""
OWN = ("log", "n", "n.new", "starts")


def lines(cluster, host, dataset):
    return [int(line) for line in cluster.run(host, "cat", f"/flocker/{dataset}/log").split()]


def test_three_datasets_move_together(cluster, make):
    """Under a writer that writes to one after the other: it stops once, and finds all that it wrote."""
    sizes = (60, 5, 120)
    sets = [cluster.api.create_dataset(cluster.node("h1"), metadata={"name": f"part{i}"}) for i in range(3)]
    for dataset, files in zip(sets, sizes):
        cluster.wait_mounted(dataset, "h1")
        fill(volume(cluster, "h1", dataset), files=files)
    before = [digest(volume(cluster, "h1", dataset), skip=OWN) for dataset in sets]
    mounts = [word for dataset, path in zip(sets, ("/a", "/a/b", "/c")) for word in ("-V", f"{dataset}:{path}")]
    cluster.ctl("create-container", "-n", cluster.node("h1"), *mounts, "--wait", "writer", IMAGE, "--", "sh", "-c", WRITER)
    lease = cluster.api.acquire_lease(sets[2], cluster.node("h1"))
    assert lease
    wait_until(lambda: len(lines(cluster, "h1", sets[2])) > 20, "it writes")
    cluster.ctl("move-container", "-t", cluster.node("h2"), "writer")
    # One of them cannot go: nothing is stopped, and the container says which.
    wait_reason(cluster, "writer", "waiting-for-dataset", sets[2], "lease-held")
    assert "waiting-for-dataset" in cluster.ctl("why", sets[0])
    sofar = lines(cluster, "h1", sets[2])[-1]
    wait_until(lambda: lines(cluster, "h1", sets[2])[-1] > sofar + 5, "it writes on while they wait")
    cluster.api.release_lease(sets[2])
    cluster.wait_container("writer", "h2")
    wait_until(lambda: len(lines(cluster, "h2", sets[2])) > sofar + 20, "it writes on h2")
    cluster.ctl("destroy-container", "writer", "--wait")
    assert cluster.run("h2", "cat", f"/flocker/{sets[2]}/starts") == "xx"
    written = [lines(cluster, "h2", dataset) for dataset in sets]
    assert [digest(volume(cluster, "h2", dataset), skip=OWN) for dataset in sets] == before
    for log in written:  # where it was stopped one number may be there twice
        assert sorted(set(log)) == list(range(1, log[-1] + 1)) and len(log) <= log[-1] + 2, log
    assert max(log[-1] for log in written) - min(log[-1] for log in written) <= 1
    for dataset in sets:
        cluster.api.delete_dataset(dataset)


def test_read_only_and_nested(cluster, make):
    """As the options of flockerctl say it, all of which reach Docker."""
    outer, inner = [cluster.api.create_dataset(cluster.node("h1"), metadata={"name": name}) for name in ("outer", "inner")]
    for dataset in (outer, inner):
        cluster.wait_mounted(dataset, "h1")
    script = "touch /data/x 2>/dev/null || echo refused; touch /data/inner/y && echo written; " + RUN_ON
    cluster.run("h1", "mkdir", f"/flocker/{outer}/inner")
    cluster.ctl("create-container", "-n", cluster.node("h1"), "-V", "inner:/data/inner", "-V", "outer:/data:ro", "--wait",
                "--entrypoint", "sh", "--entrypoint=-c", "-u", "0:0", "-w", "/tmp", "--label", "tier=web", "--cpus", "0.5",
                "--stop-signal", "SIGTERM", "--stop-grace", "7s", "--health-cmd", "true", "--health-interval", "1s",
                "app", IMAGE, "--", script)
    assert cluster.run("h1", "docker", "logs", "flocker--app").split() == ["refused", "written"]
    made = inspect(cluster, "h1", "flocker--app")
    config = made["Config"]
    assert (config["Entrypoint"], config["User"], config["WorkingDir"]) == (["sh", "-c"], "0:0", "/tmp")
    assert (config["StopSignal"], config["StopTimeout"], config["Labels"]["tier"]) == ("SIGTERM", 7, "web")
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 10**9}
    assert made["HostConfig"]["NanoCpus"] == 5 * 10**8
    assert [(m["Destination"], m["RW"]) for m in sorted(made["Mounts"], key=lambda m: m["Destination"])] == [
        ("/data", False), ("/data/inner", True)]
    ids = {outer[:8], inner[:8]}
    assert ids <= set(cluster.ctl("ps").replace(",", " ").split())
    why = cluster.ctl("why", "app")
    assert f"{outer} at /data, read-only" in why and f"{inner} at /data/inner" in why
    cluster.api.delete_container("app")
    for dataset in (outer, inner):
        cluster.api.delete_dataset(dataset)
