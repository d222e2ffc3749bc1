"""The package, as `uvx --from git+https://... wan-ui` builds and installs it: the page starts and makes a clip.

What it needs is this environment's: the fresh one of the test has the package alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from wan_ui.settings import ROOT

PATIENCE = 240  # seconds, for a machine that is busy ten times over
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-build-isolation", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, check=True, cwd=folder)
    return next(folder.glob("*.whl"))


def pins(*names: str) -> set[str]:
    lines = [line for name in names for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return {bare(line) for line in lines if "==" in line and not line.startswith("#")}


def bare(line: str) -> str:
    """ "a_b==1; python_version < '4'" -> "a-b==1" """
    return line.partition(";")[0].strip().lower().replace("_", "-")


def test_the_package_has_what_the_program_reads_and_needs_what_the_requirements_say(wheel):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    own = [name for name in tracked.split("\0") if name.startswith(("wan_ui/", "configs/", "assets/"))]
    inside = {name if name.startswith("wan_ui/") else f"wan_ui/{name}" for name in own if "assets/readme/" not in name}
    packed = zipfile.ZipFile(wheel)
    assert {name for name in packed.namelist() if ".dist-info/" not in name} >= inside
    assert not [name for name in packed.namelist() if "tests" in name or name.endswith(".pyc")]
    lines = packed.read(next(name for name in packed.namelist() if name.endswith("METADATA"))).decode().splitlines()
    needed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    assert {bare(line) for line in needed if "extra" not in line} == pins("requirements.txt")
    extra = {bare(line) for line in needed if "extra" in line}
    assert extra == pins("requirements-mcp.txt", "requirements-ray.txt")


def test_what_builds_it_is_pinned_alike():
    assert {line.lower() for line in PROJECT["build-system"]["requires"]} <= pins("requirements-dev.txt")


@pytest.mark.timeout(600)
def test_the_installed_command_starts_the_page_and_makes_a_clip(wheel, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    bin = tmp_path / "venv" / "bin"
    packages = tmp_path / f"venv/lib/python3.{sys.version_info.minor}/site-packages"
    (packages / "here.pth").write_text(sysconfig.get_path("purelib"))
    options = ["--no-deps", "--no-index", "--no-compile", "-qq"]
    command = [sys.executable, "-m", "pip", "--python", bin / "python", "install", *options, wheel]
    subprocess.run(command, check=True)

    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "WAN_UI_THREADS": "1"}
    lacking = subprocess.run(
        [bin / "wan-ui", "generate", "--model", "i2v-a14b", "--prompt", "x", "--out", "x.mp4"],
        cwd=tmp_path, env=environ, capture_output=True, text=True,
    )  # fmt: skip
    assert lacking.returncode == 1 and "Traceback" not in lacking.stderr, lacking.stderr
    port = free_port()
    log = tmp_path / "wan-ui.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [bin / "wan-ui", "--port", str(port)], cwd=tmp_path, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as web:
            end = time.monotonic() + PATIENCE
            while True:
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
                with contextlib.suppress(httpx.TransportError):
                    if "Wan UI" in web.get("/").text:
                        break
                time.sleep(0.2)
            picture = (packages / "wan_ui" / "assets" / "examples" / "cat.jpg").read_bytes()
            path = web.post("/api/upload", files={"files": ("cat.jpg", picture)}).json()["path"]
            given = {"image": path, "prompt": "slowly zoom in", "steps": 1, "frames": 17, "seed": 1}
            job = web.post("/api/jobs", json=given).json()
            while job["state"] in ("queued", "running"):
                assert time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.2)
                job = web.get(f"/api/jobs/{job['job']}").json()
            assert job["state"] == "done", job
            assert web.get(job["clip"]).content[4:8] == b"ftyp"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()[-3000:]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert "Traceback" not in log.read_text()
    assert (home / ".local" / "share" / "wan-ui" / "outputs" / "wan_ui.sqlite").is_file()
    assert not (tmp_path / "outputs").exists()  # nothing is left where it was called
