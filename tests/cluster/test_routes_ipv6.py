"""External ports by IPv6: where nodes report IPv6 addresses, each port answers on every node."""

from lab import connect_in, wait_until

CLUSTER = {"nodes": 3, "backend": "btrfs", "docker": True, "images": ["busybox"], "options": ["--ipv6"]}
HOSTS = ("h1", "h2", "h3")
SAY = r'''printf "#!/bin/sh\necho $WHO\n" >/say; chmod +x /say; trap exit TERM; nc -ll -p 80 -e /say & wait'''


def says(cluster, place, address, port=7100):
    if place == "client":
        pid = int(cluster.variables["CLIENT_PID"])
    else:
        with open(cluster.path(place, "pid"), encoding="ascii") as f:
            pid = int(f.read())
    try:
        with connect_in(pid, (address, port), 3) as s:
            s.settimeout(3)
            return s.recv(100).decode().strip()
    except OSError:
        return None


def wait_says(cluster, place, address, name):
    wait_until(lambda: says(cluster, place, address) == name, f"{name} answers on {address} from {place}", 20, 0.05)


def test_answers_everywhere_and_follows(cluster):
    assert {n["host"] for n in cluster.api.nodes()} == {"fd77::11", "fd77::12", "fd77::13"}
    dataset = cluster.api.create_dataset(cluster.node("h1"))
    cluster.api.create_container(cluster.node("h1"), "six", "flocker-lab/busybox:1", environment={"WHO": "six"},
                                 command_line=["sh", "-c", SAY], ports=[{"internal": 80, "external": 7100}],
                                 volumes=[{"dataset_id": dataset, "mountpoint": "/data"}])
    cluster.wait_container("six", "h1")
    for home in ("h1", "h3"):
        if home != "h1":
            cluster.api.move_container("six", cluster.node(home))
            cluster.wait_container("six", home)
        for host in HOSTS:
            wait_says(cluster, "client", cluster.address(host), "six")
            wait_says(cluster, "h2", cluster.address(host), "six")
    table = cluster.shell("h2", f"nft list table inet flocker-{cluster.node('h2')}")
    assert "7100 : fd77::13" in table, table
    assert cluster.shell("h2", "cat /proc/sys/net/ipv6/conf/all/forwarding").strip() == "1"
    cluster.api.delete_container("six")
    wait_until(lambda: says(cluster, "client", cluster.address("h2")) is None, "nothing answers any more", 20)
    cluster.api.delete_dataset(dataset)
    cluster.wait_gone(dataset)
