"""The real LightX2V on a CPU: what its imports and its platform lack here is supplied by these shims.

Skipped, with the reason, unless WAN_UI_LIGHTX2V_PATH points to a checkout or the package is installed,
and where the weights of Wan-Tiny are missing. Upstream computes in bf16 or fp16 only; for the parity
tests its bf16 is float32 (`compute`), so that the two engines can be held against each other closely.
"""

import importlib.machinery
import os
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from wan_ui import catalog as catalogs
from wan_ui import patches, weights
from wan_ui import settings as settings_module
from wan_ui.hardware import lightx2v_missing
from wan_ui.patches.record import owner
from wan_ui.settings import load_settings

UPSTREAM = {}  # target of a patch -> the callable as LightX2V has it

# Hard imports of LightX2V that no Wan model on a CPU uses.
ABSENT = ("decord", "prometheus_client", "torchaudio", "torchvision", "triton")


class Absent:
    """Import finder: modules of ABSENT that are not installed become mocks."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__version__ = [], "0"
        if spec.name == "triton":  # its configurations are compared at import
            module.Config = lambda kwargs, num_warps=4, num_stages=2: SimpleNamespace(
                kwargs=kwargs, num_warps=num_warps, num_stages=num_stages
            )
        return module

    def exec_module(self, module):
        pass


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    values = {name: os.environ[name] for name in os.environ if name.startswith("WAN_UI_")}
    values.setdefault("WAN_UI_CACHE", str(tmp_path_factory.mktemp("cache")))
    return load_settings(values)


@pytest.fixture(scope="session")
def model(settings):
    tiny = catalogs.load_catalog(settings.catalog)["wan-tiny"]
    missing = weights.availability(tiny, tiny.scheme(""), settings)
    if missing:
        pytest.skip(f"Wan-Tiny: {missing}")
    return tiny


@pytest.fixture(scope="session")
def lightx2v(settings, model):
    """LightX2V imported on a "cpu" platform, without page-locked memory."""
    missing = lightx2v_missing(settings)
    if missing and not missing.startswith("no CUDA"):
        pytest.skip(missing)
    import diffusers  # noqa: F401 - look for torchvision themselves: before it is mocked
    import torch
    import torch._inductor.runtime.triton_heuristics  # torch.compile looks for triton: before it is mocked
    import torch.utils.flop_counter
    import transformers  # noqa: F401

    sys.meta_path.append(Absent())
    if settings.lightx2v_path:
        sys.path.insert(0, settings.lightx2v_path)
    os.environ.update(PLATFORM="cpu", SKIP_PLATFORM_CHECK="1")
    try:
        from lightx2v_platform.registry_factory import PLATFORM_DEVICE_REGISTER
    except ImportError as error:
        pytest.skip(f"LightX2V cannot be imported: {error}")
    if not torch.cuda.is_available():
        PLATFORM_DEVICE_REGISTER["cpu"] = type(
            "Cpu",
            (),
            {
                "init_device_env": staticmethod(lambda: None),
                "is_available": staticmethod(lambda: True),
                "get_device": staticmethod(lambda: "cpu"),
            },
        )
        empty = torch.empty
        torch.empty = lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs)
        torch.Tensor.pin_memory = lambda self, *args: self
        gib = 2**30
        for name, value in {
            "mem_get_info": lambda: (64 * gib, 64 * gib),
            "memory_allocated": lambda: 0,
            "memory_reserved": lambda: 0,
            "empty_cache": lambda: None,
            "Stream": lambda **kwargs: SimpleNamespace(synchronize=lambda: None),
            "stream": lambda stream: nullcontext(),
        }.items():
            if not hasattr(torch.cpu, name) or name in ("Stream", "stream"):  # torch's has no synchronize
                setattr(torch.cpu, name, value)
    settings_module.use(settings)
    from wan_ui.engines.lightx2v import import_lightx2v

    try:
        import_lightx2v({"DTYPE": "BF16", "SENSITIVE_LAYER_DTYPE": "None", "PROFILING_DEBUG_LEVEL": "0"})
    except Exception as error:
        pytest.skip(f"LightX2V cannot be imported: {error}")
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
def load(model, compute):
    """load("fp8", torch.bfloat16) -> a loaded engine; closed at the end."""
    import torch

    from wan_ui.engines.lightx2v import LightX2VEngine

    engines = []

    def make(scheme, dtype=None, **options):
        compute(dtype or torch.float32, **options)
        engine = LightX2VEngine()
        engines.append(engine)
        engine.load(model, model.scheme(scheme) if isinstance(scheme, str) else scheme, lambda progress: None)
        return engine

    yield make
    for engine in engines:
        engine.close()
