"""The production engine on a CUDA GPU; skipped without one, or without LightX2V, before anything large is imported.

    WAN_UI_LIGHTX2V_PATH=... pytest tests/gpu

In a process of its own: LightX2V asks once, at its import, what it runs on. The fixtures are those of
tests/lightx2v with another `device`; tests that are imported from there are the same, on the GPU.
"""

from dataclasses import replace

import pytest

from tests.lightx2v.conftest import (  # noqa: F401
    compute,
    euler_steps,
    lightx2v,
    load,
    model,
    offload,
    opened,
    reference,
    settings,
    unpatched,
)
from wan_ui import settings as settings_module
from wan_ui.machine.engine_choice import lightx2v_missing


def missing() -> str:
    """Why the tests of this folder cannot run here, "" if they can."""
    return lightx2v_missing(settings_module.settings())


class Left(pytest.Module):
    """A file of this folder that is not imported."""

    def collect(self):
        pytest.skip(missing(), allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return Left.from_parent(parent, path=module_path) if missing() else None


@pytest.fixture(scope="session")
def device():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32 here, as on the CPU that it is compared with
    return "cuda"


@pytest.fixture(scope="session")
def cuda(device):
    """For tests that need more of CUDA than a device to compute on."""
    if device != "cuda":
        pytest.skip("needs CUDA")


@pytest.fixture
def configured(lightx2v, settings):  # noqa: F811
    """configured(lightx2v_compile="on"): settings for what is loaded afterwards."""
    from wan_ui.machine.memory import limit_gpu

    yield lambda **changes: settings_module.use(replace(settings, **changes))
    settings_module.use(settings)
    limit_gpu(settings.gpu_gib)
