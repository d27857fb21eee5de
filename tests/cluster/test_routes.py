"""Every external port answers on every node and reaches the node that runs the application."""

import time

import pytest

from lab import connect_in, wait_until

CLUSTER = {"nodes": 3, "backend": "btrfs", "docker": True, "images": ["busybox"]}
HOSTS = ("h1", "h2", "h3")
# Says who it is and since when it runs, then repeats what it hears.
ECHO = r'''echo "$WHO $(cat /proc/uptime)" >/who; printf "#!/bin/sh\ncat /who; exec cat\n" >/say; chmod +x /say
trap exit TERM; nc -ll -p 80 -e /say & wait'''


def pid_of(cluster, place):
    if place == "client":
        return int(cluster.variables["CLIENT_PID"])
    with open(cluster.path(place, "pid"), encoding="ascii") as f:
        return int(f.read())


def connect(cluster, place, address, port, timeout=5.0):
    return connect_in(pid_of(cluster, place), (address, port), timeout)


def who(cluster, place, address, port):
    """Who answers, or None."""
    try:
        with connect(cluster, place, address, port) as s:
            s.settimeout(5)
            return s.recv(200).decode().split(" ")[0]
    except OSError:
        return None


def answers(cluster, place, address, port, name, timeout=20):
    wait_until(lambda: who(cluster, place, address, port) == name, f"{name} answers on {address}:{port} from {place}",
               timeout, interval=0.05)


def run_echo(cluster, name, host, port, **settings):
    cluster.api.create_container(cluster.node(host), name, "flocker-lab/busybox:1", ports=[{"internal": 80, "external": port}],
                                 command_line=["sh", "-c", ECHO], environment={"WHO": name}, **settings)
    cluster.wait_container(name, host)


def delete(cluster, *names):
    for name in names:
        cluster.api.delete_container(name)
    wait_until(lambda: not {c["name"] for c in cluster.api.container_states()} & set(names), "containers gone")


def ours(cluster, host):
    """Our table and our rules in Docker's chain, as one text."""
    table = cluster.shell(host, f"nft list table inet flocker-{cluster.node(host)} 2>/dev/null || true")
    return table + cluster.shell(host, "iptables -S DOCKER-USER | grep flocker || true")


def everything(cluster, host):
    """All rules, without counters."""
    text = cluster.shell(host, "nft -s list ruleset; cat /proc/sys/net/ipv4/conf/*/route_localnet")
    return "\n".join(line for line in text.splitlines() if "counter packets" not in line)


@pytest.mark.deadline(240)
def test_foreign_rules_stay_and_nothing_is_left(cluster):
    cluster.shell("h3", "nft add table ip mine; nft add chain ip mine c '{ type filter hook input priority 5; }';"
                  "nft add rule ip mine c tcp dport 9 drop; iptables -I DOCKER-USER -s 203.0.113.0/24 -j DROP")
    before = everything(cluster, "h3")
    run_echo(cluster, "first", "h1", 7000)
    answers(cluster, "client", cluster.address("h3"), 7000, "first")
    chain = [line for line in cluster.shell("h3", "iptables -S DOCKER-USER").splitlines() if line.startswith("-A")]
    assert "203.0.113.0/24" in chain[0] and chain[-1] == "-A DOCKER-USER -j RETURN", chain
    assert [f"flocker {cluster.node('h3')}" in line for line in chain[1:-1]] == [True, True], chain
    assert "mine" in cluster.shell("h3", "nft list ruleset")
    delete(cluster, "first")
    wait_until(lambda: everything(cluster, "h3") == before, "the rules are as they were before", 20)
    cluster.shell("h3", "nft delete table ip mine; iptables -D DOCKER-USER -s 203.0.113.0/24 -j DROP")


def test_answers_everywhere(cluster):
    run_echo(cluster, "everywhere", "h1", 7001)
    for host in HOSTS:
        answers(cluster, "client", cluster.address(host), 7001, "everywhere")
        answers(cluster, host, "127.0.0.1", 7001, "everywhere")
        for other in HOSTS:
            answers(cluster, host, cluster.address(other), 7001, "everywhere")
    for host in HOSTS:  # from a container, by its node's address
        said = cluster.shell(host, f"docker run --rm flocker-lab/busybox:1 sh -c 'echo | nc -w 5 {cluster.address(host)} 7001'", check=False)
        assert said.startswith("everywhere"), f"from a container on {host}: {said!r}"
    # What lets 127.0.0.1 out lets nobody in: a packet for it from another host is dropped.
    assert cluster.shell("h3", "cat /proc/sys/net/ipv4/conf/eth0/route_localnet").strip() == "1"
    assert "iifname @localnet ip daddr 127.0.0.0/8 drop" in ours(cluster, "h3")
    delete(cluster, "everywhere")
    for host in HOSTS:
        wait_until(lambda host=host: who(cluster, "client", cluster.address(host), 7001) is None, f"nothing on {host}")
        assert cluster.shell(host, "cat /proc/sys/net/ipv4/conf/eth0/route_localnet").strip() == "0"


def test_loopback_services_stay_out_of_reach(cluster):
    """The known hole of route_localnet: a neighbour sends to 127.0.0.1 through our interface."""
    run_echo(cluster, "guarded", "h1", 7002)
    answers(cluster, "h3", "127.0.0.1", 7002, "guarded")
    cluster.shell("h3", "nohup python3 -m http.server --bind 127.0.0.9 7777 >/dev/null 2>&1 & echo $! >/run/secret.pid; sleep 1")
    cluster.shell("client", f"echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet;"
                  f"ip route add 127.0.0.9/32 via {cluster.address('h3')}; ip rule add pref 0 to 127.0.0.9 lookup main;"
                  "ip rule del pref 0 lookup local; ip rule add pref 10 lookup local")
    try:
        with pytest.raises(OSError):
            connect(cluster, "client", "127.0.0.9", 7777, timeout=2)
        cluster.stop("h3", "agent")  # this is what the guard is there for:
        cluster.shell("h3", f"nft flush chain inet flocker-{cluster.node('h3')} guard")
        connect(cluster, "client", "127.0.0.9", 7777, timeout=5).close()
        cluster.start("h3", "agent")
        wait_until(lambda: "ip daddr 127.0.0.0/8 drop" in ours(cluster, "h3"), "the guard is back")
        with pytest.raises(OSError):
            connect(cluster, "client", "127.0.0.9", 7777, timeout=2)
    finally:
        cluster.shell("client", "ip rule add pref 0 lookup local; ip rule del pref 10; ip rule del pref 0 to 127.0.0.9;"
                      "ip route del 127.0.0.9/32; echo 0 >/proc/sys/net/ipv4/conf/eth0/route_localnet")
        cluster.shell("h3", "kill $(cat /run/secret.pid)")
        delete(cluster, "guarded")


def test_the_agent_and_the_control_service_restart(cluster):
    run_echo(cluster, "kept", "h2", 7003)
    answers(cluster, "client", cluster.address("h3"), 7003, "kept")
    with connect(cluster, "client", cluster.address("h3"), 7003) as s:
        s.settimeout(10)
        s.recv(200)
        before = ours(cluster, "h3")
        cluster.kill("h3", "agent")
        cluster.kill("control", "control")
        assert who(cluster, "client", cluster.address("h3"), 7003) == "kept"
        cluster.start("h3", "agent")
        time.sleep(2)  # without its control service the agent leaves everything as it is
        assert ours(cluster, "h3") == before
        cluster.start("control", "control")
        cluster.wait_nodes(HOSTS)
        time.sleep(1)
        assert ours(cluster, "h3") == before
        s.sendall(b"still\n")
        assert s.recv(200) == b"still\n"
    delete(cluster, "kept")


def test_what_others_take_away_comes_back(cluster):
    run_echo(cluster, "back", "h2", 7004)
    answers(cluster, "client", cluster.address("h3"), 7004, "back")
    wanted = ours(cluster, "h3")
    cluster.shell("h3", f"nft delete table inet flocker-{cluster.node('h3')}")
    answers(cluster, "client", cluster.address("h3"), 7004, "back")
    cluster.shell("h3", "iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN")
    answers(cluster, "client", cluster.address("h3"), 7004, "back")
    cluster.shell("h3", "iptables -F DOCKER-USER; iptables -D FORWARD -j DOCKER-USER; iptables -X DOCKER-USER")
    cluster.stop("h3", "docker")
    cluster.start("h3", "docker")
    answers(cluster, "client", cluster.address("h3"), 7004, "back")
    wait_until(lambda: sorted(ours(cluster, "h3").split("\n")) == sorted(wanted.split("\n")), "all is as it was", 20)
    delete(cluster, "back")


def test_a_port_that_something_else_listens_on(cluster):
    """The application has the port on every node; what listened there is reached again when it is gone."""
    cluster.shell("h2", "nohup busybox nc -ll -p 7005 -e echo foreign >/dev/null 2>&1 & echo $! >/run/foreign.pid; sleep 0.3")
    assert who(cluster, "client", cluster.address("h2"), 7005) == "foreign\n"
    run_echo(cluster, "mine", "h1", 7005)
    answers(cluster, "client", cluster.address("h2"), 7005, "mine")
    cluster.api.move_container("mine", cluster.node("h2"))

    def reason():
        return (cluster.api.expect("GET", "/v1/state/containers/mine").get("reason") or {}).get("code")
    wait_until(lambda: reason() == "port-in-use", "the clash is said")
    cluster.shell("h2", "kill $(cat /run/foreign.pid)")
    answers(cluster, "client", cluster.address("h3"), 7005, "mine", timeout=60)
    delete(cluster, "mine")


def test_a_lost_host_does_not_hold_its_clients(cluster):
    """Nobody tells the client that the host is gone; that its port leads elsewhere now does, at its next word."""
    run_echo(cluster, "runaway", "h2", 7006)
    answers(cluster, "client", cluster.address("h3"), 7006, "runaway")
    with connect(cluster, "client", cluster.address("h3"), 7006) as s:
        s.settimeout(10)
        s.recv(200)
        cluster.partition("h2")
        try:
            cluster.api.move_container("runaway", cluster.node("h1"))
            cluster.wait_container("runaway", "h1")
            answers(cluster, "client", cluster.address("h3"), 7006, "runaway")
            began = time.monotonic()
            with pytest.raises(ConnectionResetError):
                s.sendall(b"are you there?\n")
                s.recv(200)
            assert time.monotonic() - began < 5
        finally:
            cluster.heal("h2")
    wait_until(lambda: "runaway" not in cluster.run("h2", "docker", "ps", "--format", "{{.Names}}"), "the old one stopped")
    delete(cluster, "runaway")


@pytest.mark.deadline(240)
def test_a_database_moves_while_others_use_it(cluster, record_property):
    dataset = cluster.api.create_dataset(cluster.node("h1"), maximum_size=1 << 28)
    cluster.wait_mounted(dataset, "h1")
    run_echo(cluster, "db", "h1", 7007, volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
    answers(cluster, "client", cluster.address("h3"), 7007, "db")
    with connect(cluster, "client", cluster.address("h3"), 7007) as s:
        s.settimeout(30)
        first = s.recv(200)
        cluster.api.move_container("db", cluster.node("h2"))
        while s.recv(200):  # until the end of the connection
            pass
    while True:
        try:
            with connect(cluster, "client", cluster.address("h3"), 7007, timeout=1) as s:
                s.settimeout(1)
                said = s.recv(200)
                if said and said != first:
                    reached = time.clock_gettime(time.CLOCK_BOOTTIME)
                    break
        except OSError:
            pass
        time.sleep(0.005)
    took = reached - float(said.split()[1])  # the container tells when it started
    record_property("reached_after_start_ms", round(took * 1000))
    print(f"reached {took * 1000:.0f} ms after its start, over a third node")
    assert took < 5
    delete(cluster, "db")
    cluster.api.delete_dataset(dataset)


def test_links_and_names_over_two_hosts(cluster):
    """What a container is told of another stays true when that one moves: it is its own node's address."""
    run_echo(cluster, "orders-db", "h2", 7011)
    cluster.api.create_container(cluster.node("h1"), "shop", "flocker-lab/busybox:1",
                                 command_line=["sh", "-c", "trap exit TERM; sleep 1000 & wait"],
                                 links=[{"alias": "db", "local_port": 80, "remote_port": 7011}])
    cluster.wait_container("shop", "h1")

    def inside(script):
        return cluster.run("h1", "docker", "exec", "flocker--shop", "sh", "-c", script, check=False)
    address = cluster.address("h1")
    assert inside("echo $DB_PORT_80_TCP $DB_PORT_80_TCP_ADDR $DB_PORT_80_TCP_PORT $DB_PORT_80_TCP_PROTO").split() == [
        f"tcp://{address}:7011", address, "7011", "tcp"]

    def reached(name):
        return inside(f"echo | nc -w 5 {name} 7011").startswith("orders-db")
    for name in ("db", "orders-db", "$DB_PORT_80_TCP_ADDR"):
        wait_until(lambda name=name: reached(name), f"the database by {name}")
    for host in ("h3", "h1"):
        cluster.api.move_container("orders-db", cluster.node(host))
        cluster.wait_container("orders-db", host)
        for name in ("db", "orders-db"):
            wait_until(lambda name=name: reached(name), f"the database by {name}, from {host}")
    delete(cluster, "shop", "orders-db")


def test_remove_routes(cluster):
    run_echo(cluster, "left", "h1", 7008)
    answers(cluster, "client", cluster.address("h3"), 7008, "left")
    cluster.stop("h3", "agent")
    assert who(cluster, "client", cluster.address("h3"), 7008) == "left"
    assert "gone" in cluster.run("h3", "flocker-agent", "--remove-routes")
    assert ours(cluster, "h3") == ""
    assert cluster.shell("h3", "cat /proc/sys/net/ipv4/conf/eth0/route_localnet").strip() == "0"
    assert who(cluster, "client", cluster.address("h3"), 7008) is None
    assert "no routes" in cluster.run("h3", "flocker-agent", "--remove-routes")
    cluster.start("h3", "agent")
    answers(cluster, "client", cluster.address("h3"), 7008, "left")
    delete(cluster, "left")


def test_a_route_that_cannot_be_made_says_why(cluster):
    """... and holds up nothing else."""
    cluster.shell("h3", "mkdir -p /run/broken; for p in iptables iptables-restore; do"
                  " printf '#!/bin/sh\\necho the filter is broken >&2; exit 4\\n' >/run/broken/$p; chmod +x /run/broken/$p; done")
    cluster.stop("h3", "agent")
    cluster.start("h3", "agent", PATH="/run/broken:/usr/sbin:/usr/bin:/sbin:/bin")
    run_echo(cluster, "broken", "h1", 7009)

    def reason():
        node = next(n for n in cluster.api.nodes() if n["uuid"] == cluster.node("h3"))
        return (node.get("reason") or {})
    wait_until(lambda: reason().get("code") == "routes-failed", "the reason is said")
    assert "the filter is broken" in reason()["text"]
    assert "routes-failed" in cluster.ctl("list-nodes")
    run_echo(cluster, "beside", "h3", 7010)
    cluster.stop("h3", "agent")
    cluster.start("h3", "agent")
    answers(cluster, "client", cluster.address("h3"), 7009, "broken")
    wait_until(lambda: not reason(), "the reason is over")
    delete(cluster, "broken", "beside")


def test_a_port_that_a_node_keeps_is_said(cluster):
    """22 of the nodes themselves stays reachable: it leads to no application, unless agent.yml says so."""
    run_echo(cluster, "shell", "h1", 22)
    answers(cluster, "client", cluster.address("h1"), 22, "shell")

    def notes():
        return {n["uuid"]: n["reason"] for n in cluster.api.nodes() if "reason" in n}
    wait_until(lambda: set(notes()) == {cluster.node("h2"), cluster.node("h3")}, "the others say it")
    reason = notes()[cluster.node("h3")]
    assert reason["code"] == "routes-failed" and "port 22 (of container shell)" in reason["text"] and "agent.yml" in reason["text"]
    assert who(cluster, "client", cluster.address("h3"), 22) is None
    assert "port 22 (of container shell)" in cluster.shell("h3", f"cat {cluster.path('h3', 'log', 'agent')}")
    delete(cluster, "shell")
    wait_until(lambda: notes() == {}, "the notes are gone", 20)
