"""What bash completes: every command and option of every program, and names that a control service tells.

FLOCKER_COMPLETION is the file that bash reads.
"""

import os
import subprocess
import sys
import tempfile
import time

import programs

FILE = os.environ["FLOCKER_COMPLETION"]
# As bash divides a line into words, and calls the function.
SCRIPT = r"""
source "$FLOCKER_COMPLETION"
while IFS= read -r line; do
    words=()
    for word in $line; do
        while [[ $word == --*=* ]]; do
            words+=("${word%%=*}" =)
            word=${word#*=}
            [[ -n $word ]] || continue 2
        done
        words+=("${word/#_/}")
    done
    COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line}
    COMPREPLY=()
    _flocker
    printf '%s\t' "${COMPREPLY[@]}"
    printf '\n'
done
"""


def complete(lines, **environment):
    """What is offered at the end of each line, as sets. A last word "_" is an empty one, as after a space."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FLOCKER_") or k == "FLOCKER_COMPLETION"}
    clean["PATH"] = f"{programs.BIN}:{clean['PATH']}"
    clean.update(environment)
    done = subprocess.run(["bash", "--norc", "-f", "-c", SCRIPT], input="\n".join(lines) + "\n", capture_output=True, text=True,
                          check=False, timeout=120, env=clean)
    assert done.returncode == 0 and not done.stderr, done
    answers = done.stdout.splitlines()
    assert len(answers) == len(lines), done
    return [set(filter(None, answer.split("\t"))) for answer in answers]


def forms(text):
    for name, (letter, argument) in programs.options(text).items():
        yield f"--{name}=" if argument else f"--{name}"
        if letter:
            yield f"-{letter}"


def test_every_option():
    every = list(programs.every_command())
    for (words, text), offered in zip(every, complete([" ".join([*words, "-"]) for words, _ in every])):
        assert offered == set(forms(text)), f"{words}: {offered ^ set(forms(text))}"


def test_every_command():
    listing = [(words, text) for words, text in programs.every_command() if programs.commands(text)]
    assert len(listing) > 3
    lines = [" ".join([*words, "_"]) for words, _ in listing]
    for (words, text), offered in zip(listing, complete(lines)):
        assert offered == set(programs.commands(text)), words


def test_a_part_of_an_option():
    assert complete(["flockerctl create --wa", "flockerctl --control-s", "flocker-control --b", "flockerctl create --no"]) == \
        [{"--wait"}, {"--control-service="}, {"--backup="}, {"--node="}]


def test_behind_a_path_and_flocker():
    assert complete([f"{programs.BIN}/flockerctl li", "flocker ctl list --del", "flocker flockerctl list --del"]) == \
        [{"list", "list-nodes", "list-replicas"}, {"--deleted"}, {"--deleted"}]


def test_values_that_are_known():
    assert complete(["flockerctl list -o _", "flockerctl list --output=j", "flocker-ca initialize --key-type=_",
                     "flockerctl create-container --restart on", "flocker-volume ad"]) == \
        [{"table", "json"}, {"json"}, {"rsa", "ec"}, {"on-failure"}, {"adopt"}]


def test_files():
    with tempfile.TemporaryDirectory() as folder:
        for name in ("one.crt", "one.key"):
            with open(f"{folder}/{name}", "w", encoding="ascii"):
                pass
        os.mkdir(f"{folder}/sub")
        lines = [f"flocker-ca show {folder}/one", f"flocker-control --backup={folder}/o", f"flocker-control -d {folder}/_",
                 f"flocker-deploy host {folder}/o"]
        both = {f"{folder}/one.crt", f"{folder}/one.key"}
        offered = complete([line.replace("/_", "/") for line in lines])
        assert offered == [both, both, {f"{folder}/sub"}, both], offered


# A flockerctl in its place: with the help of the real one, and answers of a control service.
STAND_IN = """#!/bin/sh
for a; do case $a in --help) exec {real} "$@" ;; esac; done
echo "$*" >>{log}
[ ! -e {slow} ] || exec sleep 30
for a; do
    case $a in
        list-nodes) printf 'SERVER  ADDRESS\\naaaa-1  10.0.0.1\\nbbbb-2  10.0.0.2\\n' ;;
        list) printf 'DATASET SIZE METADATA STATUS SERVER\\nd0-1 1.00G a=b,name=orders attached x\\n'
              printf 'd0-2 <no quota> name=$(touch\\\\040{log}.bad),x=y attached x\\nd0-3 2.00G  attached x\\n' ;;
        ps) printf 'NAME IMAGE\\nweb image\\ndb image\\n-rf image\\n`touch${{IFS}}{log}.bad` image\\n' ;;
    esac
done
"""


def with_stand_in(work):
    with tempfile.TemporaryDirectory() as folder:
        names = {"real": f"{programs.BIN}/flockerctl", "log": f"{folder}/log", "slow": f"{folder}/slow"}
        with open(f"{folder}/flockerctl", "w", encoding="ascii") as f:
            f.write(STAND_IN.format(**names))
        os.chmod(f"{folder}/flockerctl", 0o755)
        work(f"{folder}/flockerctl", names)
        assert not os.path.exists(f"{folder}/log.bad"), "a name was carried out"


def test_names_of_the_cluster():
    def work(ctl, names):
        nodes, datasets, containers = {"aaaa-1", "bbbb-2", "10.0.0.1", "10.0.0.2"}, {"d0-1", "orders", "d0-2", "d0-3"}, {"web", "db"}
        expected = {
            "drain _": nodes, "drain 10": {"10.0.0.1", "10.0.0.2"}, "move -d o": {"orders"}, "move -t a": {"aaaa-1"},
            "move --destination=b": {"bbbb-2"}, "show _": datasets, "show orders _": set(), "why _": datasets | containers,
            "move-container _": containers, "move-container -t aaaa-1 w": {"web"}, "destroy-container d": {"db"},
            "create-container _": set(), "create-container -V o": {"orders"}, "grow -s 4G o": {"orders"},
            "--control-service=x --user me uncordon b": {"bbbb-2"}, "drain --wait b": {"bbbb-2"}, "verify -- _": datasets,
        }
        for line, offered in zip(expected, complete([f"{ctl} {line}" for line in expected])):
            assert offered == expected[line], f"{line}: {offered}"
        with open(names["log"], encoding="ascii") as f:
            assert "--control-service=x --user me list-nodes -l" in f.read().splitlines()
    with_stand_in(work)


def test_a_slow_service_is_not_waited_for():
    def work(ctl, names):
        with open(names["slow"], "w", encoding="ascii"):
            pass
        started = time.monotonic()
        assert complete([f"{ctl} drain _"]) == [set()]
        assert time.monotonic() - started < 5
    with_stand_in(work)


def test_without_a_service():
    assert complete(["flockerctl drain _", "flockerctl show _"]) == [set(), set()]


if __name__ == "__main__":
    sys.exit(programs.run_cases([case for name, case in sorted(globals().items()) if name.startswith("test_")]))
