"""Container images for the lab, made from Debian packages; no registry and no running Docker are needed.

An image is written in the form of `docker save`: one layer, its configuration, a manifest. The archives are kept in
build/cache under a name that changes with this file, so they are made once.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile

from roots import RootError, codename, debian_sources, recipe, unpack

# Applets that the images' scripts and the tests use.
APPLETS = """[ ash awk basename cat chmod chown cp cut date dd df dirname du echo env false find grep head hostname
httpd id ip kill ln ls md5sum mkdir mount mv nc netstat nslookup od pidof ping printf ps pwd readlink rm rmdir
sed seq sh sha256sum sleep sort stat su sync tail tar tee telnet test time timeout top touch tr true umount uname
uniq usleep vi wc wget which xargs""".split()

PASSWD = """root:x:0:0:root:/:/bin/sh
postgres:x:999:999:PostgreSQL:/data:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUP = """root:x:0:
postgres:x:999:
nogroup:x:65534:
"""

# The first start fills the volume; a start that was cut short begins anew, because only the last rename counts.
POSTGRES_START = """#!/bin/sh
set -e
data=${PGDATA:-/data/pgdata}
if [ ! -e "$data/PG_VERSION" ]; then
    rm -rf "$data.new"
    mkdir -p "$data.new"
    chown postgres:postgres "$data.new"
    chmod 700 "$data.new"
    su -s /bin/sh postgres -c "exec initdb --pgdata='$data.new' --no-locale --encoding=UTF8 --auth=trust --no-sync"
    echo "host all all all trust" >>"$data.new/pg_hba.conf"
    sync
    mv "$data.new" "$data"
fi
exec su -s /bin/sh postgres -c "exec postgres -D '$data' -c listen_addresses='*' \\
    -c unix_socket_directories=/tmp -c fsync=on -c jit=off -c timezone=UTC -c log_timezone=UTC $*"
"""


# As in the image of Docker's own: what it is told to run is redis-server, unless something else is asked for.
REDIS_ENTRYPOINT = """#!/bin/sh
cd /data
if [ "$1" = redis-server ]; then
    shift
    exec redis-server --protected-mode no "$@"
fi
exec "$@"
"""

SHOP_START = """#!/bin/sh
trap exit TERM
httpd -f -p 80 -h /srv &
wait
"""
SHOP = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../docs/examples/shop/shop.sh")


class Layer:
    """A tar of the files of one layer, in memory order of addition; every directory is made once."""

    def __init__(self, path):
        self.path = path
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # pylint: disable=consider-using-with
        self.names = set()

    def add(self, name, kind, mode, data=None, link="", size=0):
        name = name.lstrip("/")
        if name in self.names:
            return
        parent = os.path.dirname(name)
        if parent:
            self.add(parent, tarfile.DIRTYPE, 0o755)
        self.names.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname, info.size = kind, mode, link, size
        self.tar.addfile(info, data)

    def directory(self, name, mode=0o755):
        self.add(name, tarfile.DIRTYPE, mode)

    def text(self, name, text, mode=0o644):
        data = text.encode()
        self.add(name, tarfile.REGTYPE, mode, io.BytesIO(data), size=len(data))

    def symlink(self, name, target):
        self.add(name, tarfile.SYMTYPE, 0o777, link=target)

    def file(self, name, source, mode=None):
        with open(source, "rb") as f:
            status = os.fstat(f.fileno())
            self.add(name, tarfile.REGTYPE, mode or status.st_mode & 0o755, f, size=status.st_size)

    def close(self):
        self.tar.close()


def add_from_root(layer, root, name, depth=0):
    """Copies `name` (absolute inside root), the links it is reached through, and all below it."""
    if depth > 20:
        raise RootError(f"{name}: too many symbolic links")
    parts = name.strip("/").split("/")
    for i in range(1, len(parts) + 1):
        prefix = "/" + "/".join(parts[:i])
        if os.path.islink(root + prefix):
            target = os.readlink(root + prefix)
            layer.symlink(prefix, target)
            real = os.path.normpath(os.path.join(os.path.dirname(prefix), target))
            rest = parts[i:]
            add_from_root(layer, root, "/".join([real, *rest]), depth + 1)
            return
    path = root + "/" + "/".join(parts)
    if os.path.isdir(path):
        layer.directory(name)
        for child in sorted(os.listdir(path)):
            if os.path.islink(f"{path}/{child}") and not os.path.exists(f"{path}/{child}"):
                continue
            add_from_root(layer, root, f"{name}/{child}", depth)
    elif os.path.isfile(path):
        layer.file(name, path)


def add_busybox(layer):
    for source in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(source):
            break
    else:
        raise RootError("no busybox here; install the package busybox-static")
    layer.file("bin/busybox", source, 0o755)
    offered = set(subprocess.run([source, "--list"], capture_output=True, text=True, check=True).stdout.split())
    for applet in APPLETS:
        if applet not in offered:
            raise RootError(f"this busybox has no {applet}")
        layer.symlink(f"bin/{applet}", "busybox")
    layer.text("etc/passwd", PASSWD)
    layer.text("etc/group", GROUP)
    layer.directory("tmp", 0o1777)
    for name in ("proc", "sys", "dev", "data", "root", "run"):
        layer.directory(name)


def write_image(archive, name, fill, config):
    """`fill` puts the files into the layer; `config` is the image's Config object. Appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(archive)) as scratch:
        layer = Layer(os.path.join(scratch, "layer.tar"))
        fill(layer)
        layer.close()
        with open(layer.path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        image = json.dumps({
            "architecture": subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True,
                                           check=True).stdout.strip(),
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], **config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "lab/images.py"}],
        }).encode()
        image_name = hashlib.sha256(image).hexdigest() + ".json"
        manifest = json.dumps([{"Config": image_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]).encode()
        out = os.path.join(scratch, "image.tar")
        with tarfile.open(out, "w") as tar:
            for member, data in ((image_name, image), ("manifest.json", manifest)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            tar.add(layer.path, f"{digest}/layer.tar")
        os.rename(out, archive)


def build_busybox(archive, _):
    write_image(archive, "flocker-lab/busybox:1", add_busybox, {"Cmd": ["sh"]})


def libraries(root, programs):
    """Every shared library that the programs load, as absolute names inside root."""
    loader = next((name for name in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
                   if os.path.lexists(root + name)), None)
    if loader is None:
        raise RootError("the unpacked packages have no dynamic loader that is known here")
    found = {loader}
    for program in programs:
        done = subprocess.run(["chroot", root, loader, "--list", program], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RootError(f"{program}: {done.stderr.strip()}")
        for line in done.stdout.splitlines():
            target = line.partition("=>")[2].split()
            if target and target[0].startswith("/"):
                found.add(target[0])
    return sorted(found)


def postgres_version(root):
    return max(os.listdir(root + "/usr/lib/postgresql"), key=int)


def build_postgres(archive, scratch):
    root = os.path.join(scratch, "root")
    unpack(root, codename(), *debian_sources(), ["postgresql", "libc-bin"])
    version = postgres_version(root)
    home = f"/usr/lib/postgresql/{version}"
    programs = [f"{home}/bin/{p}" for p in ("postgres", "initdb", "pg_ctl", "psql", "pgbench", "pg_isready")]
    modules = [f"{home}/lib/{m}" for m in ("plpgsql.so", "dict_snowball.so", "amcheck.so")]

    def fill(layer):
        for name in [*programs, *modules, *libraries(root, programs + modules), f"/usr/share/postgresql/{version}"]:
            add_from_root(layer, root, name)
        for name in os.listdir(f"{root}{home}/lib"):
            if name.endswith(".so") and name.startswith(("euc", "utf8", "cyrillic", "latin", "libpq")):
                add_from_root(layer, root, f"{home}/lib/{name}")
        for name in ("UTC", "Etc/UTC", "GMT"):
            if os.path.exists(f"{root}/usr/share/zoneinfo/{name}"):
                add_from_root(layer, root, f"/usr/share/zoneinfo/{name}")
        add_busybox(layer)
        layer.text("usr/local/bin/start-postgres", POSTGRES_START, 0o755)

    write_image(archive, "flocker-lab/postgres:1", fill, {
        "Cmd": ["start-postgres"],
        "Env": [f"PATH=/usr/local/bin:{home}/bin:/usr/bin:/bin"],
        "ExposedPorts": {"5432/tcp": {}},
        "StopSignal": "SIGINT",  # PostgreSQL's fast shutdown; SIGTERM would wait for the clients to leave
        "WorkingDir": "/",
    })


def build_redis(archive, scratch):
    root = os.path.join(scratch, "root")
    unpack(root, codename(), *debian_sources(), ["redis-server", "libc-bin"])
    programs = ["/usr/bin/redis-server", "/usr/bin/redis-cli"]

    def fill(layer):
        for name in [*programs, *libraries(root, programs)]:
            add_from_root(layer, root, name)
        add_busybox(layer)
        layer.text("usr/local/bin/redis-entrypoint", REDIS_ENTRYPOINT, 0o755)

    write_image(archive, "flocker-lab/redis:1", fill, {
        "Entrypoint": ["redis-entrypoint"], "Cmd": ["redis-server"], "ExposedPorts": {"6379/tcp": {}}, "WorkingDir": "/data"})


def build_shop(archive, scratch):
    """The web part of docs/examples/shop: busybox's httpd, and what its script runs."""
    root = os.path.join(scratch, "root")
    unpack(root, codename(), *debian_sources(), ["postgresql-client", "redis-tools", "libc-bin"])
    home = f"/usr/lib/postgresql/{postgres_version(root)}"
    programs = [f"{home}/bin/psql", "/usr/bin/redis-cli"]

    def fill(layer):
        for name in [*programs, *libraries(root, programs)]:
            add_from_root(layer, root, name)
        add_busybox(layer)
        layer.file("srv/cgi-bin/shop", SHOP, 0o755)
        layer.text("usr/local/bin/start-shop", SHOP_START, 0o755)

    write_image(archive, "flocker-lab/shop:1", fill, {
        "Cmd": ["start-shop"], "Env": [f"PATH=/usr/local/bin:{home}/bin:/usr/bin:/bin"], "ExposedPorts": {"80/tcp": {}}})


BUILDERS = {"busybox": build_busybox, "postgres": build_postgres, "redis": build_redis, "shop": build_shop}


def build(name, cache, progress):
    """The path of the archive of image `name`; makes it when it is not in the cache."""
    parts = [SHOP] if name == "shop" else []
    archive = os.path.join(cache, f"{name}-{codename()}-{recipe(__file__, *parts)}.tar")
    if os.path.exists(archive):
        return archive
    os.makedirs(cache, exist_ok=True)
    progress(f"making the image flocker-lab/{name}:1")
    scratch = tempfile.mkdtemp(prefix=f".{name}-", dir=cache)
    try:
        BUILDERS[name](archive, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in os.listdir(cache):
        if old.startswith(f"{name}-{codename()}-") and old != os.path.basename(archive):
            os.unlink(os.path.join(cache, old))
    return archive


def build_all(cache, progress, names):
    return [build(name, cache, progress) for name in names]
