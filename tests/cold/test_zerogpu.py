"""The ZeroGPU Space, as tools/space.py makes its folder, with a stand-in for Hugging Face's `spaces`: a whole clip."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

from tests import lent_gpu
from tests.ports import free_port
from tools import space
from wan_ui.settings import ROOT

PATIENCE = 240  # seconds, for a machine that is busy ten times over


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    folder = tmp_path_factory.mktemp("zerogpu") / "space"
    space.make_folder(folder, zerogpu=True)
    return folder


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M))


def test_the_space_is_one_of_gradio_with_the_versions_that_the_tests_have(folder):
    front = (folder / "README.md").read_text(encoding="utf-8").split("---")[1]
    own = pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    needed = pins((folder / "requirements.txt").read_text(encoding="utf-8"))
    assert {name: needed.get(name) for name in own} == own and set(needed) - set(own) == {"spaces"}
    assert "sdk: gradio\n" in front and f"sdk_version: {own['gradio']}\n" in front and "app_file: app.py\n" in front
    assert '\npython_version: "3.12"\n' in front  # Python 3.12 is one of those that this project takes
    assert not (folder / "Dockerfile").exists() and not (folder / "space").exists()
    assert (folder / "assets/wan-tiny/Wan2.1_VAE.pth").is_file() and (folder / "wan_ui/app.py").is_file()


@pytest.mark.timeout(600)
def test_a_whole_clip_is_made_on_a_gpu_that_is_lent_to_the_visitor(folder, tmp_path):
    lender, port, log = lent_gpu.write(tmp_path / "lender"), free_port(), tmp_path / "space.log"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("WAN_UI_", "GRADIO_"))},
        "PYTHONPATH": str(lender), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        "SPACES_ZERO_GPU": "true", "WAN_UI_PORT": str(port), "WAN_UI_OUTPUTS": str(tmp_path / "outputs"),
        "WAN_UI_CACHE": str(tmp_path / "cache"), "WAN_UI_THREADS": "1",
    }  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    end = time.monotonic() + PATIENCE
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as web:
            while True:
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
                with contextlib.suppress(httpx.TransportError):
                    if "Wan UI" in web.get("/").text:
                        break
                time.sleep(0.2)
            picture = (folder / "assets" / "examples" / "cat.jpg").read_bytes()
            path = web.post("/gradio_api/upload", files={"files": ("cat.jpg", picture)}).json()[0]
            image = {"path": path, "meta": {"_type": "gradio.FileData"}}

            def generate() -> str:
                values = [image, "slowly zoom in", "", "", "auto", 17, 1, 1]  # frames, steps and seed last
                headers = {"X-IP-Token": "a visitor's"}
                asked = web.post("/gradio_api/call/generate", json={"data": values}, headers=headers).json()
                return web.get(f"/gradio_api/call/generate/{asked['event_id']}").text

            done = generate()
            assert "event: complete" in done, done + log.read_text()[-3000:]
            settings = json.loads(done.split("data: ")[-1])[1]
            assert settings["model"] == "wan-tiny" and settings["frames"] == 17
            (lender / "refuse").write_text("ZeroGPU quota exceeded\nYou have exceeded your ZeroGPU quota.")
            refused = generate()
            assert "event: error" in refused and "You have exceeded your ZeroGPU quota." in refused, refused
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()[-3000:]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    (call,) = [json.loads(line) for line in (lender / "calls.jsonl").read_text().splitlines()]
    assert call["seconds"] == 60 and call["visitor"] == "a visitor's" and call["process"] != process.pid
    assert len(list((tmp_path / "outputs" / "clips").glob("*/clip.mp4"))) == 1
    assert "Traceback" not in log.read_text()
