"""A short soak: programs and a browser while everything is killed once (benchmarks/soak.py; the long one has a row in
benchmarks/LOG.md)."""

import json
import os
import subprocess
import sys

import pytest

from tests.ports import free_port
from tests.ui.conftest import PATIENCE
from wan_ui.settings import ROOT


@pytest.mark.hardening(19, 20, 21, 22, 23, 24, 25, 34)
def test_people_at_once_while_everything_is_killed(chromium, scripted_catalog, tmp_path):
    """It ends after numbers of jobs; nothing is asked of how fast they are. Memory is left to the long one."""
    command = [sys.executable, "-m", "benchmarks.soak", "--jobs", "24", "--programs", "4", "--browsers", "1"]
    command += ["--no-speech", "--app", "tests.ui.serve_scripted", "--port", str(free_port())]
    command += ["--pause", "0.3", "--hold", "2", "--timeout", "5", "--words", "zoom in, denoise:1=sleep:0.2"]
    environ = {**os.environ, "WAN_UI_CATALOG": str(scripted_catalog)}
    with (tmp_path / "soak.log").open("w+") as log:
        code = subprocess.run(command, cwd=ROOT, env=environ, stdout=log, stderr=log, timeout=10 * PATIENCE).returncode
        log.seek(0)
        said = log.read()
    assert code == 0, said[-6000:]
    found = json.loads(said.splitlines()[-1])
    assert found["holds"] and not found["failed"] and sum(found["faults"].values()) == 7
