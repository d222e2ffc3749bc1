"""A short soak: programs and a browser while everything is killed (benchmarks/soak.py; its LOG.md has the long one)."""

import json
import subprocess
import sys

import pytest

from tests.ports import free_port
from tests.ui.conftest import PATIENCE
from wan_ui.settings import ROOT


@pytest.mark.hardening(19, 20, 21, 22, 23, 24, 25, 34)
def test_people_at_once_while_everything_is_killed(chromium, tmp_path):
    """It ends after numbers of jobs; nothing is asked of how fast they are. Memory is left to the long one."""
    command = [sys.executable, "-m", "benchmarks.soak", "--jobs", "10", "--programs", "2", "--browsers", "1"]
    command += ["--no-speech", "--app", "tests.ui.serve_scripted", "--port", str(free_port())]
    command += ["--pause", "0.5", "--hold", "2", "--timeout", "15", "--words", "zoom in, denoise:1=sleep:0.5"]
    with (tmp_path / "errors.log").open("w") as errors:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, timeout=10 * PATIENCE)
    said = done.stdout.decode()
    assert done.returncode == 0, said[-6000:] + (tmp_path / "errors.log").read_text()[-3000:]
    found = json.loads(said.splitlines()[-1])
    assert found["holds"] and not found["failed"] and sum(found["faults"].values()) == 7
