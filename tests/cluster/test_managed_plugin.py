"""The managed Docker plugin (make managed-plugin): made from a folder, it hands Docker's calls to the socket on the host, and what is
mounted there is seen where Docker looks. The socket's server is a small one here: what the agent answers is tested elsewhere."""

import os
import subprocess

import lab
from lab import wait_until

SOCKET = "/run/docker/plugins/flocker/flocker.sock"
TOOL = os.path.join(lab.CHECKOUT, "tests", "cluster", "tools", "plugin_socket.py")
IMAGE = "flocker-lab/busybox:1"


def serve(cluster):
    cluster.shell("h1", f"""setsid /usr/bin/python3 {TOOL} {SOCKET} >/tmp/server.log 2>&1 </dev/null & echo $! >/tmp/server.pid
        for i in $(seq 100); do [ -S {SOCKET} ] && exit; sleep 0.1; done; cat /tmp/server.log; exit 1""")


def mounts(cluster, name):
    """In all processes of the host."""
    return cluster.shell("h1", f"cat /proc/[0-9]*/mountinfo 2>/dev/null | grep -c 'flocker/{name} \\|propagated-mount/{name} ' || true")


def test_managed_plugin(make_cluster):
    subprocess.run([os.path.join(lab.CHECKOUT, "scripts", "make-managed-plugin")], check=True, capture_output=True)
    cluster = make_cluster(nodes=1, backend="fake", docker=True, flocker=False, images=["busybox"])
    serve(cluster)
    docker = lambda *words, **settings: cluster.run("h1", "docker", *words, **settings)  # noqa: E731
    docker("plugin", "create", "lab-volumes", os.path.join(lab.CHECKOUT, "build", "managed-plugin"))
    docker("plugin", "enable", "lab-volumes")
    docker("volume", "create", "-d", "lab-volumes", "data")
    # Mounted on the host after the plugin has started.
    read = ["--volume", "data:/data", IMAGE, "cat", "/data/hello"]
    assert docker("run", "--rm", *read) == "from the volume\n"
    docker("run", "-d", "--name", "keeper", "--volume", "data:/data", IMAGE, "sleep", "1000")
    cluster.shell("h1", "docker exec keeper sh -c 'echo changed >/data/hello'; grep changed /flocker/data/hello")

    # The server on the host is another one: nothing is to be done to the plugin.
    cluster.shell("h1", f"kill $(cat /tmp/server.pid); rm {SOCKET}")
    serve(cluster)
    assert docker("run", "--rm", *read) == "changed\n"

    # Without the plugin the container keeps its volume.
    docker("plugin", "disable", "--force", "lab-volumes")
    assert docker("exec", "keeper", "cat", "/data/hello") == "changed\n"
    docker("plugin", "enable", "lab-volumes")
    docker("rm", "--force", "keeper")
    docker("volume", "rm", "data")
    # Unmounted on the host, it is so everywhere: no copy keeps it busy.
    assert int(mounts(cluster, "data")) > 0
    cluster.shell("h1", "umount /flocker/data")
    wait_until(lambda: int(mounts(cluster, "data")) == 0, "no mount of it")
    docker("plugin", "disable", "lab-volumes")
    docker("plugin", "rm", "lab-volumes")
