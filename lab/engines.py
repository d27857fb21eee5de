"""Container engines other than the machine's own Docker, for the lab: unpacked from Debian's packages into roots of their own.

A root is kept in build/cache under a name that changes with this file. lab/in-root runs a program of it on a host.
"""

import hashlib
import os
import shutil
import tempfile

from images import ImageError, debian_sources, unpack

# crun refuses cgroups of both versions at once.
CONTAINERS_CONF = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
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


def sources_of(release):
    """This machine's first source of Debian, for another release of it."""
    sources, settings = debian_sources()
    for source in sources:
        kind, uri, codename, component = source.split()
        if component == "main" and "-" not in codename:
            return [f"{kind} {uri} {release} main"], settings
    raise ImageError("this machine has no source of Debian's packages (apt-get indextargets)")


def unpack_engine(root, release, packages):
    unpack(root, release, *sources_of(release), packages)
    for name in ("bin", "sbin", "lib", "lib64"):
        if not os.path.lexists(f"{root}/{name}"):
            os.symlink(f"usr/{name}", f"{root}/{name}")
    os.makedirs(f"{root}/var/tmp", exist_ok=True)


def build(name, cache, progress):
    """The root of the engine `name`; made when it is not in the cache."""
    with open(__file__, "rb") as f:
        recipe = hashlib.file_digest(f, "sha256").hexdigest()[:8]
    root = os.path.join(cache, f"engine-{name}-{recipe}")
    if os.path.exists(root):
        return root
    os.makedirs(cache, exist_ok=True)
    release, packages, finish = ROOTS[name]
    progress(f"unpacking {name} from the packages of {release}")
    scratch = tempfile.mkdtemp(prefix=f".engine-{name}-", dir=cache)
    try:
        os.chmod(scratch, 0o755)
        unpack_engine(scratch, release, packages)
        finish(scratch)
        os.rename(scratch, root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in os.listdir(cache):
        if old.startswith(f"engine-{name}-") and old != os.path.basename(root):
            shutil.rmtree(os.path.join(cache, old), ignore_errors=True)
    return root
