"""`make run` in a fresh clone, with no virtual environment and no derived files: the page comes up.

The packages are this environment's, which `make test` has installed the same way: pip finds each of them there.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request

import pytest

from tests.conftest import OUTSIDE
from tests.ports import free_port
from wan_ui.settings import ROOT


@pytest.mark.timeout(600)
def test_make_run_in_a_fresh_clone_serves_the_page(tmp_path):
    if not (ROOT / ".git").exists() or not shutil.which("make"):
        pytest.skip("needs a git checkout and make")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    # Pip goes through the machine's proxy, if it has one. The rest is what a shell may have set.
    environ |= {name: value for name, value in OUTSIDE.items() if name.lower().endswith("_proxy")}
    environ |= {"PYTHONPATH": str(tmp_path / "other"), "PIP_USER": "1"}
    environ |= {"WAN_UI_PORT": str(port), "WAN_UI_CACHE": str(tmp_path / "cache")}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "numpy.py").write_text("raise ImportError('of another program')")
    packages = clone / f".venv/lib/python3.{sys.version_info.minor}/site-packages"
    subprocess.run(["make", ".venv/bin/python"], cwd=clone, env=environ, check=True)
    if not packages.is_dir():  # the first interpreter that is right is of another version than this one
        subprocess.run(
            ["make", "clean", ".venv/bin/python", f"PYTHON={sys.executable}"], cwd=clone, env=environ, check=True
        )
    (packages / "here.pth").write_text(sysconfig.get_path("purelib"))
    log = tmp_path / "make-run.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["make", "run"], cwd=clone, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        page = ""
        while "Wan UI" not in page:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.2)
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                continue
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # SIGINT is ignored by what a shell starts in the background
        try:
            process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
