"""A dataset grows while it is mounted, and while it moves; storage that cannot grow says so before anything is promised."""

from lab import wait_until

# The volumes of loopback have xfs, which a container of CI may make larger, too: for ext4 the kernel asks for CAP_SYS_RESOURCE.
CLUSTER = {"nodes": 2, "backend": ["btrfs", "loopback"], "options": ["--filesystem", "xfs"]}


def size_of(cluster, one):
    return next((d.get("maximum_size") for d in cluster.api.expect("GET", "/v1/state/datasets") if d["dataset_id"] == one), None)


def mib(cluster, n):
    """An xfs has at least 300 MiB: there all is eight times as large."""
    return (n << 20) * (8 if cluster.backend == "loopback" else 1)


def write(cluster, host, one, name, n):
    path, size = f"/flocker/{one}/{name}", mib(cluster, n)
    how = f"dd if=/dev/urandom of={path} bs=1M count={size >> 20} conv=fsync" if cluster.backend == "btrfs" \
        else f"fallocate -l {size} {path} && sync {path}"
    return "no room" not in cluster.shell(host, f"({how}) 2>/dev/null || echo no room")


def update(cluster, one, **body):
    return cluster.api.call("POST", f"/v1/configuration/datasets/{one}", body)


def test_grow(cluster):
    one = cluster.api.create_dataset(cluster.node("h1"), maximum_size=mib(cluster, 64))
    cluster.wait_mounted(one, "h1")
    assert size_of(cluster, one) == mib(cluster, 64)
    assert write(cluster, "h1", one, "a", 40) and not write(cluster, "h1", one, "b", 60)
    cluster.run("h1", "rm", f"/flocker/{one}/b")
    assert update(cluster, one, maximum_size=mib(cluster, 192)).json()["maximum_size"] == mib(cluster, 192)
    wait_until(lambda: size_of(cluster, one) == mib(cluster, 192), "it has grown")
    assert write(cluster, "h1", one, "b", 60)
    assert update(cluster, one, maximum_size=mib(cluster, 64)).status == 409
    # Grown and moved in one: the new node makes it as large.
    assert update(cluster, one, maximum_size=mib(cluster, 256), primary=cluster.node("h2"), metadata={"name": "big"}).status == 200
    cluster.wait_mounted(one, "h2")
    wait_until(lambda: size_of(cluster, one) == mib(cluster, 256), "it is as large there")
    assert write(cluster, "h2", one, "c", 100) and not write(cluster, "h2", one, "d", 100)
    detail = cluster.api.expect("GET", f"/v1/state/datasets/{one}")
    assert detail["reason"] is None
    assert [n["size"] for n in detail["nodes"] if n["uuid"] == detail["node"]] == [mib(cluster, 256)]


def test_grow_while_the_node_is_away(cluster):
    one = cluster.api.create_dataset(cluster.node("h1"), maximum_size=mib(cluster, 64))
    cluster.wait_mounted(one, "h1")
    cluster.stop("h1", "agent")
    assert update(cluster, one, maximum_size=mib(cluster, 128)).status == 200
    cluster.start("h1", "agent")
    wait_until(lambda: size_of(cluster, one) == mib(cluster, 128), "it has grown")


def test_killed_while_it_grows(cluster):
    """The agent dies when the volume has grown and nothing else is known of it: the next one goes on."""
    one = cluster.api.create_dataset(cluster.node("h1"), maximum_size=mib(cluster, 64))
    cluster.wait_mounted(one, "h1")
    for number, when in enumerate(("before", "after"), 1):
        cluster.stop("h1", "agent")
        pause = f"/tmp/grow-{when}"
        cluster.start("h1", "agent", FLOCKER_TEST_PAUSE_AT=f"{when}-grow:{pause}")
        wanted = mib(cluster, 64 + 64 * number)
        assert update(cluster, one, maximum_size=wanted).status == 200
        wait_until(lambda at=pause: "yes" in cluster.shell("h1", f"test -e {at} && echo yes || true"), "it pauses there")
        cluster.kill("h1", "agent")
        cluster.run("h1", "rm", "-f", pause)
        cluster.start("h1", "agent")
        wait_until(lambda size=wanted: size_of(cluster, one) == size, f"it has grown, killed {when} that")
