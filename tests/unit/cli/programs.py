"""What the built programs say of themselves with --help. FLOCKER_BIN is the folder they are in."""

import functools
import os
import re
import subprocess

BIN = os.environ["FLOCKER_BIN"]
COMMON = {"verbose", "logfile", "journald", "version", "help"}


@functools.cache
def help_of(*command):
    done = subprocess.run([f"{BIN}/{command[0]}", *command[1:], "--help"], capture_output=True, text=True, check=False,
                          timeout=20)
    assert done.returncode == 0 and not done.stderr, (command, done)
    return done.stdout


def names():
    """Of all programs."""
    found = sorted(name for name in os.listdir(BIN) if os.path.islink(f"{BIN}/{name}"))
    assert "flockerctl" in found
    return ["flocker", *found]


def options(text):
    """Long name -> (letter or "", whether an argument must follow)."""
    found = {}
    for line in text.splitlines():
        m = re.match(r"  (?:-(.), |    )--([a-z0-9-]+)(\[=|=)?", line)
        if m:
            found[m[2]] = (m[1] or "", m[3] == "=")
    assert COMMON <= found.keys(), text
    return found


def commands(text):
    """The commands that a help lists, and their aliases."""
    found = []
    listed = re.search(r"^(?:Commands|Subcommands).*\n((?:  .*\n)+)", text, re.M)
    for line in listed[1].splitlines() if listed else []:
        m = re.match(r"  ([a-z][a-z0-9-]*)(?: \(([a-z-]+)\))?(?: |$)", line)
        found += [name for name in m.groups() if name]
    return found


def every_command():
    """(words of the command, its help), programs and their commands."""
    for name in names():
        text = help_of(name)
        yield (name,), text
        for command in commands(text):
            yield (name, command), help_of(name, command)


def run_cases(cases):
    """Runs functions, and reports them as cmocka does; the exit status."""
    failed = 0
    for case in cases:
        print(f"[ RUN      ] {case.__name__}", flush=True)
        try:
            case()
            print(f"[       OK ] {case.__name__}", flush=True)
        except AssertionError as e:
            print(f"{e}\n[  FAILED  ] {case.__name__}", flush=True)
            failed += 1
    print(f"[  PASSED  ] {len(cases) - failed} test(s).")
    if failed:
        print(f"[  FAILED  ] {failed} test(s)")
    return 1 if failed else 0
