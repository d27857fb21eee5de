"""Roots out of Debian's packages, for what the lab runs; what is made is kept in build/cache.

The name of what is kept changes with the recipe by which it was made.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile


class RootError(Exception):
    pass


def debian_sources():
    """The one-line sources of this machine that are Debian's own, and its settings for reaching them."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)",
         "Created-By: Packages"], capture_output=True, text=True, check=True).stdout
    sources = []
    for line in targets.splitlines():
        origin, uri, codename, component = line.split("|")
        if origin == "Debian":
            sources.append(f"deb {uri} {codename} {component}")
    settings = []
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    for line in dump.splitlines():
        if line.startswith(("Acquire::http", "Acquire::https", "Acquire::Check-")) and not line.endswith('"";'):
            settings.append(line.rstrip(";"))
    return sorted(set(sources)), settings


def codename():
    with open("/etc/os-release", encoding="utf-8") as f:
        for line in f:
            key, _, value = line.strip().partition("=")
            if key == "VERSION_CODENAME":
                return value.strip('"')
    raise RootError("/etc/os-release does not name the release (VERSION_CODENAME)")


def unpack(root, release, sources, settings, packages, variant="extract"):
    """The variant `extract` only unpacks: nothing of the packages' own scripts is needed for the files that are taken."""
    argv = ["mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}", "--format=directory",
            "--dpkgopt=force-unsafe-io", f"--include={','.join(packages)}", "--aptopt=APT::Install-Recommends \"false\""]
    for directory in ("man", "doc", "locale", "i18n"):
        argv.append(f"--dpkgopt=path-exclude=/usr/share/{directory}/*")
    argv += [f"--aptopt={setting}" for setting in settings]
    done = subprocess.run([*argv, release, root, *sources], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=600)
    if done.returncode != 0:
        raise RootError(f"mmdebstrap could not unpack {', '.join(packages)}:\n{done.stderr[-3000:]}")


def sources_of(release):
    """This machine's first source of Debian, for another release of it."""
    sources, settings = debian_sources()
    for source in sources:
        kind, uri, codename, component = source.split()
        if component == "main" and "-" not in codename:
            return [f"{kind} {uri} {release} main"], settings
    raise RootError("this machine has no source of Debian's packages (apt-get indextargets)")


def recipe(*parts):
    """Short name of a recipe: of the files by which something is made, and of this one; a part that is no file counts as it is."""
    digest = hashlib.sha256()
    for part in (__file__, *parts):
        if os.path.exists(part):
            with open(part, "rb") as f:
                digest.update(f.read())
        else:
            digest.update(part.encode())
    return digest.hexdigest()[:8]


def cached(cache, name, made_by, make):
    """The folder NAME-RECIPE in the cache; `make` fills it when it is not there. Appears whole or not at all, and replaces those that
    other recipes made."""
    root = os.path.join(cache, f"{name}-{made_by}")
    if os.path.exists(root):
        return root
    os.makedirs(cache, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix=f".{name}-", dir=cache)
    try:
        os.chmod(scratch, 0o755)
        make(scratch)
        os.rename(scratch, root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in os.listdir(cache):
        if old.startswith(f"{name}-") and old != os.path.basename(root):
            shutil.rmtree(os.path.join(cache, old), ignore_errors=True)
    return root
