"""Container engines other than the machine's own Docker, for the lab: unpacked from Debian's packages into roots of their own.

A root is kept in build/cache under a name that changes with this file. lab/in-root runs a program of it on a host.
"""

import os
import shutil

from roots import cached, recipe, sources_of, unpack

# crun refuses cgroups of both versions at once.
CONTAINERS_CONF = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
volume_plugin_timeout = 120
[engine.runtimes]
runc = ["/usr/local/bin/runc"]
[engine.volume_plugins]
flocker = "/run/docker/plugins/flocker/flocker.sock"
[network]
network_backend = "netavark"
"""

# Where root may not raise limits, those that podman asks for (a million files) end in "invalid argument".
RUNC = """#!/usr/local/bin/busybox sh
for a in "$@"; do
    [ "$b" != --bundle ] || /usr/local/bin/busybox sed -i 's/"rlimits":\\[[^]]*\\],\\?//' "$a/config.json"
    b=$a
done
exec /usr/sbin/runc "$@"
"""


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)


def finish_docker(root):
    """What the packages' own scripts and alternatives would have made."""
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", f"{root}/etc/{name}")
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        os.symlink("xtables-nft-multi", f"{root}/usr/sbin/{name}")


def finish_podman(root):
    finish_docker(root)
    write(f"{root}/etc/containers/containers.conf", CONTAINERS_CONF)
    write(f"{root}/usr/local/bin/runc", RUNC, 0o755)
    shutil.copy("/bin/busybox", f"{root}/usr/local/bin/busybox")


# Name: release, packages, the rest of the work.
ROOTS = {
    "docker-26": ("trixie", ["docker.io", "containerd", "runc", "iptables", "tini"], finish_docker),
    "podman": ("bookworm", ["podman", "runc", "conmon", "netavark", "aardvark-dns", "iptables",
                            "golang-github-containers-common"], finish_podman),
}


def unpack_engine(root, release, packages):
    unpack(root, release, *sources_of(release), packages)
    for name in ("bin", "sbin", "lib", "lib64"):
        if not os.path.lexists(f"{root}/{name}"):
            os.symlink(f"usr/{name}", f"{root}/{name}")
    os.makedirs(f"{root}/var/tmp", exist_ok=True)


def build(name, cache, progress):
    """The root of the engine `name`; made when it is not in the cache."""
    release, packages, finish = ROOTS[name]

    def make(root):
        progress(f"unpacking {name} from the packages of {release}")
        unpack_engine(root, release, packages)
        finish(root)
    return cached(cache, f"engine-{name}", recipe(__file__), make)
