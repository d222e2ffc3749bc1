"""The real LightX2V on a CPU: what its imports and its platform lack here is supplied by cpu.py.

Skipped, with the reason, unless WAN_UI_LIGHTX2V_PATH points to a checkout or the package is installed,
and where the weights of Wan-Tiny are missing. Upstream computes in bf16 or fp16 only; for the parity
tests its bf16 is float32 (`compute`), so that the two engines can be held against each other closely.

tests/gpu takes these fixtures with another `device`.
"""

import os
import sys
from functools import partial

import pytest

from tests.lightx2v.cpu import Absent, be_a_platform
from tests.lightx2v.jobs import quiet
from wan_ui import catalog as catalogs
from wan_ui import patches
from wan_ui import settings as settings_module
from wan_ui.files import places
from wan_ui.machine.engine_choice import lightx2v_absent
from wan_ui.machine.hardware import measure
from wan_ui.patches.record import owner
from wan_ui.settings import load_settings

UPSTREAM = {}  # target of a patch -> the callable as LightX2V has it


@pytest.fixture(scope="session")
def device():
    """What LightX2V runs on: it asks once per process, at its import."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("runs on the CPU: set CUDA_VISIBLE_DEVICES to nothing; tests/gpu is for the GPU")
    return "cpu"


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    values = {name: os.environ[name] for name in os.environ if name.startswith("WAN_UI_")}
    values.setdefault("WAN_UI_CACHE", str(tmp_path_factory.mktemp("cache")))
    values.setdefault("WAN_UI_LIGHTX2V_ATTENTION", "torch_sdpa")  # the one that takes float32
    return load_settings(values)


@pytest.fixture(scope="session")
def model(settings):
    tiny = catalogs.load_catalog(settings.catalog)["wan-tiny"]
    missing = places.availability(tiny, tiny.scheme(""), settings)
    if missing:
        pytest.skip(f"Wan-Tiny: {missing}")
    return tiny


def absent(settings, why: str) -> None:
    """A checkout that was named must work: only without one are these tests left out."""
    if settings.lightx2v_path:
        pytest.fail(f"WAN_UI_LIGHTX2V_PATH={settings.lightx2v_path}: {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def lightx2v(settings, model, device):
    """LightX2V imported; without a GPU on a "cpu" platform, and without page-locked memory."""
    if missing := lightx2v_absent(settings):
        absent(settings, missing)
    import diffusers  # noqa: F401 - look for torchvision themselves: before it is mocked
    import torch._inductor.runtime.triton_heuristics  # torch.compile looks for triton: before it is mocked
    import torch.utils.flop_counter  # noqa: F401
    import transformers  # noqa: F401

    from wan_ui.engines import lightx2v_config
    from wan_ui.engines.lightx2v_upstream import import_lightx2v

    sys.meta_path.append(Absent())
    if settings.lightx2v_path:
        sys.path.insert(0, settings.lightx2v_path)
    settings_module.use(settings)
    try:
        if device == "cpu":
            os.environ.update(PLATFORM="cpu", SKIP_PLATFORM_CHECK="1")
            be_a_platform()
        import_lightx2v(lightx2v_config.environment(settings, measure()))
    except Exception as error:
        absent(settings, f"LightX2V cannot be imported: {error}")
    from loguru import logger

    logger.remove()
    for patch in patches.PATCHES:
        for target in patch.targets:
            place, name = owner(target)
            UPSTREAM[target] = getattr(place, name)
    return sys.modules["lightx2v"]


@pytest.fixture
def unpatched(lightx2v, monkeypatch):
    """unpatched(patch): upstream's own callables in its places until unpatched.undo() or the test's end."""

    def use(patch):
        monkeypatch.setattr(patches, "PATCHES", tuple(other for other in patches.PATCHES if other is not patch))
        for target in patch.targets:
            place, name = owner(target)
            monkeypatch.setattr(place, name, UPSTREAM[target])

    use.undo = monkeypatch.undo
    return use


@pytest.fixture
def compute(lightx2v, monkeypatch):
    """compute(torch.float32): what LightX2V takes for bf16 in models that are loaded afterwards."""
    import torch
    from lightx2v.models.input_encoders.hf.wan.t5.model import T5EncoderModel
    from lightx2v.utils import envs

    upstream = T5EncoderModel.__init__

    def use(dtype, text_dtype=None):
        def init(self, *args, **kwargs):  # upstream's text encoder is bf16 whatever the run is
            upstream(self, *args, **{**kwargs, "dtype": text_dtype or dtype})

        monkeypatch.setitem(envs.DTYPE_MAP, "BF16", dtype)
        monkeypatch.setattr(T5EncoderModel, "__init__", init)
        envs.GET_DTYPE.cache_clear()
        envs.GET_SENSITIVE_DTYPE.cache_clear()

    yield use
    monkeypatch.undo()
    envs.GET_DTYPE.cache_clear()
    envs.GET_SENSITIVE_DTYPE.cache_clear()
    assert envs.GET_DTYPE() == torch.bfloat16


@pytest.fixture
def opened(compute):
    """opened(model, "fp8", torch.bfloat16) -> an engine that has loaded it; closed at the end."""
    import torch

    from wan_ui.engines.lightx2v import LightX2VEngine

    engines = []

    def make(model, scheme, dtype=None, **options):
        compute(dtype or torch.float32, **options)
        engine = LightX2VEngine()
        engines.append(engine)
        engine.load(model, model.scheme(scheme) if isinstance(scheme, str) else scheme, quiet)
        return engine

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def load(model, opened):
    """load("fp8", torch.bfloat16) -> a loaded engine of the embedded model."""
    return partial(opened, model)


@pytest.fixture
def offload(lightx2v, monkeypatch):
    """offload("block"): where the weights of models that are loaded afterwards wait."""
    from wan_ui.engines import lightx2v_config

    return lambda name: monkeypatch.setattr(lightx2v_config, "_offload", lambda *args: (name, "for the test"))


@pytest.fixture
def reference(settings, monkeypatch):
    """reference(model, "fp8") -> the diffusers engine with that scheme, in float32 on the CPU; closed at the end."""
    import torch

    from wan_ui.engines import diffusers
    from wan_ui.engines.device import Choice
    from wan_ui.qa.reference import float32_engine

    monkeypatch.setattr(diffusers, "choose_device", lambda model: Choice(torch.device("cpu"), "for the comparison"))
    engines = []

    def load(model, scheme):
        engines.append(float32_engine(model, model.scheme(scheme) if isinstance(scheme, str) else scheme, quiet))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


@pytest.fixture
def euler_steps(monkeypatch):
    """Latents after each step of either engine, by the sigma before it; a test with both clears it in between."""
    from wan_ui.engines import schedule

    steps, euler_step = {}, schedule.euler_step

    def recorded(latents, velocity, sigma, next_sigma):
        after = euler_step(latents, velocity, sigma, next_sigma)
        steps[sigma] = after.cpu()  # the preview asks first, the step itself last
        return after

    monkeypatch.setattr(schedule, "euler_step", recorded)
    return steps
