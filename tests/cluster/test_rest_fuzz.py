"""A live control service against its own OpenAPI document: schemathesis makes requests that fit to it and requests that do
not, alone and in sequences, and compares every answer with it (status, type, headers, body)."""

import os
import pathlib
import random
import subprocess

import pytest

from cli_programs import ROOT
from rest_service import Service

ST = ROOT / "build" / "venv" / "bin" / "st"
SETTINGS = pathlib.Path(__file__).resolve().parent / "schemathesis"


@pytest.mark.deadline(280)
@pytest.mark.skipif(not ST.exists(), reason="no schemathesis: run scripts/install-schemathesis")
def test_everything_against_the_document(tmp_path, full):
    service = Service(tmp_path, "--audit-log", tmp_path / "audit")
    seed = random.randrange(1 << 30) if full else 1
    try:
        done = subprocess.run(
            [ST, "--config-file", SETTINGS / "schemathesis.toml", "run", "--no-color", "--tls-verify", tmp_path / "cluster.crt",
             "--request-cert", tmp_path / "user.crt", "--request-cert-key", tmp_path / "user.key",
             "--exclude-operation-id", "streamEvents",  # it has no end
             "--max-examples", "100" if full else "10", "--seed", str(seed),
             f"https://127.0.0.1:{service.port}/v1/openapi.json"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SETTINGS), "PYTHONDONTWRITEBYTECODE": "1"}, timeout=1200 if full else 240,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.returncode == 0, f"seed {seed}\n{done.stdout[-20000:]}"
        assert service.process.poll() is None
    finally:
        service.close()
    said = service.log.read_text()
    assert "defect:" not in said and " error " not in said, said[-5000:]
