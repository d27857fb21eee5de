"""The original service's configuration taken over: what comes of it on real nodes, and what is refused."""

import json
import os
import pathlib
import subprocess

import pytest

from cli_programs import run
from volumes import create, is_mounted, state, volume, wait_reason
from lab import wait_until

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "import"
A = "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
D1 = "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
D2 = "71a0f3c2-9e4d-4b26-8f15-2468ace13579"


def imported(directory, file, *options):
    return run("flocker-control", "--data-path", directory, "--import", file, *options)


@pytest.mark.parametrize("version", range(1, 7))
def test_every_version(tmp_path, version):
    done = imported(tmp_path / "store", GOLDEN / f"v{version}.json")
    leases = 1 if version >= 3 else 0
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[0] == (f"Imported {GOLDEN}/v{version}.json (version {version}): 2 datasets, of them 1 "
                                           f"deleted; 1 containers; {leases} leases.")
    # Once, and only into a store that has nothing.
    again = imported(tmp_path / "store", GOLDEN / "v1.json")
    assert again.returncode == 1 and "is not empty; import into a new directory" in again.stderr
    # It is a store like any other.
    said = run("flocker-control", "--data-path", tmp_path / "store", "--backup", tmp_path / "copy").stdout
    assert f"2 datasets, 1 containers, {leases} leases" in said


def test_all_or_nothing(tmp_path):
    whole = (GOLDEN / "v6.json").read_text(encoding="utf-8")
    file = tmp_path / "current_configuration.json"
    for text, says in ((whole[:len(whole) // 2], "current_configuration.json: "), ("", "current_configuration.json: "),
                       ("[]", "there must be a Configuration"), (whole.replace('"version": 6', '"version": 9'), "version 9"),
                       (whole.replace(f'"hex": "{A}"', '"hex": "x"'), "must be a UUID")):
        file.write_text(text, encoding="utf-8")
        done = imported(tmp_path / "store", file)
        assert done.returncode == 1 and says in done.stderr, done
        assert not (tmp_path / "store").exists()
    assert "cannot open" in imported(tmp_path / "store", tmp_path / "missing").stderr
    assert "is not a file of at most" in imported(tmp_path / "store", tmp_path).stderr
    with open(file, "wb") as f:
        f.truncate((256 << 20) + 1)
    assert "is not a file of at most 256 MiB" in imported(tmp_path / "store", file).stderr
    # The disk is too small for the store.
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False).returncode == 0:
        try:
            done = imported(small / "store", GOLDEN / "v6.json")
            assert done.returncode == 1 and "full" in done.stderr.lower(), done
        finally:
            subprocess.run(["umount", str(small)], check=True)


def take_over(cluster, *options):
    """The control service with an imported store, in place of the empty one."""
    text = (GOLDEN / "v3.json").read_text(encoding="utf-8").replace(A, cluster.node("h1")).replace("postgres", "flocker-lab/busybox")
    cluster.stop("control", "control")
    cluster.shell("control", "rm -r /var/lib/flocker/*")
    with open(cluster.path("control", "etc", "old.json"), "w", encoding="utf-8") as f:
        f.write(text)
    said = cluster.run("control", "flocker-control", "--import", "/etc/flocker/old.json", *options)
    cluster.start("control", "control")
    cluster.stop("h1", "agent")
    cluster.run("h1", "flocker-agent", "--adopt")
    cluster.start("h1", "agent")
    cluster.wait_nodes(["h1"])
    return said


def test_data_are_expected(make_cluster):
    """Nothing is made in the place of data that are not there, and nothing started on it."""
    cluster = make_cluster(nodes=1)
    take_over(cluster)
    wait_reason(cluster, D1, "data-missing")
    assert not is_mounted(cluster, "h1", D1)
    entry = {d["dataset_id"]: d for d in cluster.api.datasets()}
    assert entry[D1]["metadata"] == {"name": "orders"} and entry[D1]["maximum_size"] == 21474836480
    assert entry[D2]["deleted"]
    assert [c["name"] for c in cluster.api.containers()] == ["shop-db"]
    wait_until(lambda: cluster.api.leases() == [], "the lease of 2015 to go", 10)
    # The service is as good as any: something new is made, and the missing one can be given up.
    create(cluster, "h1", maximum_size=1 << 30)
    cluster.api.delete_container("shop-db")
    cluster.api.delete_dataset(D1)
    cluster.wait_gone(D1)


def test_made_anew(make_cluster):
    cluster = make_cluster(nodes=1)
    said = take_over(cluster, "--import-empty")
    cluster.wait_mounted(D1, "h1")
    assert os.listdir(volume(cluster, "h1", D1)) == []
    assert state(cluster, D1)["reason"] is None
    assert cluster.api.containers() == []
    line = [one for one in said.splitlines() if "shop-db was not taken" in one][0]
    body = json.loads(line[line.index("{"):])
    assert cluster.api.expect("POST", "/v1/configuration/containers", body)["name"] == "shop-db"
