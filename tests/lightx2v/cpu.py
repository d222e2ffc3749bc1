"""What LightX2V's imports and its platform lack on a machine without a GPU."""

import importlib.machinery
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

# Hard imports of LightX2V that no Wan model on a CPU uses.
ABSENT = ("decord", "prometheus_client", "torchaudio", "torchvision", "triton")


class Absent:
    """Import finder, to be the last one: packages of `absent` that are not installed become mocks."""

    def __init__(self, absent=ABSENT):
        self.absent = absent

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package in self.absent and (name == package or isinstance(sys.modules.get(package), MagicMock)):
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


def be_a_platform() -> None:
    """Register the CPU with LightX2V as its platform "cpu"; no memory is page-locked, streams are none."""
    import torch
    from lightx2v_platform.registry_factory import PLATFORM_DEVICE_REGISTER

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
