"""What the benchmarks share: how they speak, and how they look at a process."""

import json
import os
import sys

CHECKOUT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(CHECKOUT, "tests", "cluster"))

import lab  # noqa: E402 pylint: disable=wrong-import-position

memory = lab.memory
MIB = 1 << 20


class NotMeasured(Exception):
    """A benchmark could not run; the text says why."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def emit(name, ours, unit, goal=None, theirs=None, peer=None, ratio_goal=None, **extra):
    """Prints a result; was its goal met? `goal`: ours is at most this. `ratio_goal`: ours is at least this many times
    theirs."""
    def digits(value):
        return value if value is None else round(value, 2)
    ratio = ours / theirs if theirs else None
    met = None
    if goal is not None:
        met = ours <= goal
    if ratio_goal is not None:
        met = met is not False and ratio is not None and ratio >= ratio_goal
    print(json.dumps({"name": name, "ours": digits(ours), "unit": unit, "peer": peer, "theirs": digits(theirs),
                      "ratio": digits(ratio), "goal": goal, "ratio_goal": ratio_goal, "met": met, **extra}), flush=True)
    return met is not False


def processor_seconds(pid):
    """Used by all threads of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
