"""Finds and runs the built command-line programs.

FLOCKER_BIN_DIR names the folder with the programs; otherwise the newest build in build/ is used.
"""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def bin_dir():
    given = os.environ.get("FLOCKER_BIN_DIR")
    if given:
        return pathlib.Path(given).resolve()
    found = [p for p in (ROOT / "build" / "bin", ROOT / "build" / "dev" / "bin") if (p / "flocker").exists()]
    if not found:
        raise RuntimeError("no program found: build first, or set FLOCKER_BIN_DIR")
    return max(found, key=lambda p: (p / "flocker").stat().st_mtime)


def run(name, *arguments, cwd=None, env=None, timeout=60):
    """Runs one program without the caller's FLOCKER_ variables; never raises for its exit status."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FLOCKER_")}
    clean.update(env or {})
    return subprocess.run(
        [str(bin_dir() / name), *map(str, arguments)],
        cwd=cwd,
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def ok(name, *arguments, **settings):
    """The same; the program must succeed and say nothing on standard error. Returns its output."""
    done = run(name, *arguments, **settings)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout
