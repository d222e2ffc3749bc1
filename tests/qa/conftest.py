"""Wan-Tiny in float32, small, on one thread: a reference, and a patient that faults are put into."""

import copy
from dataclasses import replace

import pytest

from wan_ui import settings as settings_module
from wan_ui.catalog import load_catalog
from wan_ui.qa import reference as references
from wan_ui.settings import ROOT, Settings

TRIAL = references.Trial(64, 64, 9)


def quiet(progress) -> None:
    pass


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    if not list((ROOT / "assets" / "wan-tiny").glob("HighNoise/*.gguf")):
        pytest.skip("assets/wan-tiny holds no weights")
    before = settings_module.settings()
    folder = tmp_path_factory.mktemp("qa")
    values = replace(Settings(), outputs=folder / "outputs", cache=ROOT / "build" / "test-cache", threads=1)
    settings_module.use(values)
    yield load_catalog(values.catalog)["wan-tiny"]
    settings_module.use(before)


@pytest.fixture(scope="session")
def healthy(model):
    """The float32 engine on the bf16 weights."""
    engine = references.float32_engine(model, model.scheme("bf16"), quiet)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def reference(healthy, model):
    return references.compute(healthy, model, TRIAL)


@pytest.fixture
def patient(healthy):
    """A second engine like `healthy`, to be made ill. A copy: to read the files again takes eight times as long."""
    engine = copy.deepcopy(healthy)
    yield engine
    engine.close()
