"""Shared fixtures: settings in a temporary folder, a catalog entry for the scripted engine, a picture."""

import gc
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wan_ui import settings
from wan_ui.families import VAE_21
from wan_ui.files import places
from wan_ui.settings import ROOT, Settings

CHECKOUTS = ("WAN_UI_LIGHTX2V_PATH", "WAN_UI_MUSETALK_PATH", "WAN_UI_FASTVIDEO_PATH")
# What a shell may have set must not change what is tested: settings of another Wan UI or of Gradio, and proxies,
# through which requests to this machine would go. `make run` in a clone gets the proxies back.
OUTSIDE = {
    name: os.environ.pop(name)
    for name in list(os.environ)
    if name.lower().endswith(("http_proxy", "https_proxy", "all_proxy"))
    or name.startswith("GRADIO_")
    or name == "HF_ENDPOINT"
    or (name.startswith("WAN_UI_") and name not in CHECKOUTS)
}

# The apps and workers that the tests start would each compile all of the program again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

gc.disable()  # while all is collected and imported; below it is put to work again

if not Path("/dev/nvidia0").exists():  # Triton reads it when it is imported, and torch may do that any time
    os.environ["TRITON_INTERPRET"] = "1"

SHARED = ("engines", "golden", "lightx2v", "lipsync", "qa", "patches", "gpu")
# What waits most of its time, for browsers, apps and workers that start; the rest computes.
WAITING = ("cold", "ui", "queue", "cluster", "commands", "hardening", "machine")
# Of these the longest, and of what computes.
LONGEST = (
    "engines",
    "qa",
    "ui/test_flow",
    "ui/test_api",
    "ui/test_looks",
    "ui/test_models",
    "ui/test_speech",
    "cold",
    "ui",
)
# The files that share one app are one group as well, or two: it would be started once in each process.
ONE_APP = {"test_heard.py": "test_flow.py"}
ONE_APP |= dict.fromkeys(["test_faults.py", "test_files.py", "test_owners.py", "test_security.py"], "test_api.py")

SCRIPTED = """
[scripted]
title = "Scripted engine"
family = "a14b"
root = "embedded:{root}"
needs_gpu = false
sizes = ["64x64", "96x64", "64x96"]
frames = [5, 9]
default_frames = 5
steps = [1, 8]
default_steps = 4
shift = 5.0
boundary = 0.9
fps = 16
default_scheme = "bf16"
schemes.bf16 = {{ title = "bf16", kind = "bf16" }}
schemes.fp8 = {{ title = "fp8", kind = "fp8" }}
schemes.slow = {{ title = "slow", kind = "bf16" }}
"""


def pytest_addoption(parser):
    parser.addoption("--store", action="store_true", help="write the reference numbers again, where a test makes some")


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # the order below, not by the number of tests


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With several processes (pytest -n 3 --dist loadgroup) each takes one group after the other, long ones first.

    A group is what shares costly fixtures: the models of a folder, the apps of a file of tests/ui. Ours, since the
    marks of pytest-xdist 3.8 are not seen with pytest 9.2: every test would be a group.

    The first process takes what computes; the others take what waits, and fill the pauses. When
    there is none left of the one kind, they all go on with the other.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::")[0]
            folder, file = path.split("/")[1:3]
            if folder == "ui":
                return f"tests/ui/{ONE_APP.get(file, file)}"
            return folder if folder in SHARED else path

        def _assign_work_unit(self, node) -> None:
            computes = node.gateway.id == "gw0"
            for scope in self.workqueue:
                if (scope.removeprefix("tests/").split("/")[0] not in WAITING) == computes:
                    self.workqueue.move_to_end(scope, last=False)
                    break
            super()._assign_work_unit(node)

    return Groups(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: order(item.path.relative_to(ROOT / "tests").as_posix()))


def order(path: str) -> int:
    """What takes long begins early: at the end the processes have little to wait for each other."""
    ranks = (*LONGEST, *SHARED, *WAITING)
    return next((number for number, start in enumerate(ranks) if path.startswith(start)), len(ranks))


def pytest_collection_finish():
    gc.enable()
    keep_what_is_imported()


def pytest_runtest_logfinish():
    if len(sys.modules) > KNOWN[0] + 300:  # a test was the first to need diffusers or transformers
        gc.collect()
        keep_what_is_imported()


KNOWN = [0]  # how many modules there were then


def keep_what_is_imported():
    """It stays anyway: without looking through it a collection, as after a job, is quick."""
    gc.freeze()
    KNOWN[0] = len(sys.modules)


@pytest.fixture(autouse=True)
def settings_of_this_process(monkeypatch):
    """A test whose program makes settings those of its process leaves none to the next."""
    monkeypatch.setattr(settings, "_current", settings._current)


@pytest.fixture
def scripted_settings(tmp_path) -> Settings:
    return scripted(tmp_path)


def scripted(tmp_path: Path) -> Settings:
    """Settings whose only model is the scripted one; everything lives in tmp_path."""
    root = tmp_path / "scripted-model"
    names = ["high_noise_model/config.json", "low_noise_model/config.json", places.T5_FILE, VAE_21.file]
    names += [*places.TOKENIZER_FILES, "HighNoise/x-Q8_0.gguf", "LowNoise/x-Q8_0.gguf"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(SCRIPTED.format(root=root))
    return Settings(
        outputs=tmp_path / "outputs",
        models=tmp_path / "models",
        cache=tmp_path / "cache",
        catalog=catalog,
        model="scripted",
        stage_timeout=60,
    )


@pytest.fixture
def tiny_settings(tmp_path) -> Settings:
    """Settings for the real embedded model; the derived weights are kept between tests."""
    if not list((ROOT / "assets" / "wan-tiny").glob("HighNoise/*.gguf")):
        pytest.skip("assets/wan-tiny holds no weights")
    return replace(Settings(), outputs=tmp_path / "outputs", cache=Path(ROOT / "build" / "test-cache"))


@pytest.fixture
def small_settings(tiny_settings, tmp_path) -> Settings:
    """The same, and its clips are small and short: for what does not depend on what is seen in them."""
    offered = 'sizes = ["256x256", "320x192", "192x320"]\nframes = [17, 25, 33]\ndefault_frames = 33\n'
    text = tiny_settings.catalog.read_text(encoding="utf-8")
    assert text.count(offered) == 1
    catalog = tmp_path / "small.toml"
    catalog.write_text(text.replace(offered, 'sizes = ["96x64"]\nframes = [5, 9]\ndefault_frames = 9\n'), "utf-8")
    return replace(tiny_settings, catalog=catalog)


@pytest.fixture
def picture(tmp_path) -> Path:
    """A small smooth picture."""
    y, x = np.mgrid[0:120, 0:160] / 160
    pixels = np.stack([x, y, 0.5 + 0.5 * np.sin(12 * x * y)], -1)
    path = tmp_path / "picture.png"
    Image.fromarray((pixels * 255).astype(np.uint8)).save(path)
    return path
