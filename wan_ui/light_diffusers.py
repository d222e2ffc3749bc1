"""diffusers' models, each imported without what it does not need: half of what a worker computes until it is there.

`diffusers/models/transformers/__init__.py` imports every transformer that diffusers has, and so do its neighbours. In
`alone` these packages are there with their folders only, and a file in them loads itself and what it needs:

    with alone():
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

Its files also import transformers and scipy, to read other people's files and for schedules of sigmas, and torch's
compiler, to mark what it shall not look into. In `alone` these are stand-ins: the first two import the real ones when
they are used, the third marks nothing, since nothing of diffusers is compiled here. After it all of them are as if
nobody had asked for them: who imports one then, as LightX2V may, gets the whole of it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

STAND_INS = ("transformers", "scipy", "scipy.stats", "scipy.integrate")
PACKAGES = ("diffusers.models.transformers", "diffusers.models.autoencoders", "diffusers.models.unets")


class Later:
    """A name of a module that is imported when the name is used."""

    def __init__(self, module: str, name: str):
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return getattr(importlib.import_module(module), name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real()(*arguments, **named)


class StandIn(ModuleType):
    def __init__(self, name: str):
        super().__init__(name)
        if "." not in name:
            self.__spec__ = importlib.util.find_spec(name)  # it is asked for, to see whether there is one

    def __getattr__(self, name: str) -> Later:
        if name.startswith("__"):
            raise AttributeError(name)
        return Later(self.__name__, name)


def unmarked(function: Any = None, *options: Any, **named: Any) -> Any:
    """A decorator, with arguments or without, that decorates nothing."""
    return unmarked if function is None else function


def compiler() -> ModuleType:
    module = ModuleType("torch._dynamo")
    module.allow_in_graph = module.disable = unmarked  # type: ignore[attr-defined]
    return module


@contextmanager
def alone() -> Iterator[None]:
    added: dict[str, ModuleType] = {}

    def add(name: str, module: ModuleType) -> None:
        if name not in sys.modules:
            sys.modules[name] = added[name] = module

    try:
        if "transformers" not in sys.modules:  # it uses the compiler itself
            add("torch._dynamo", compiler())
            for name in STAND_INS:
                add(name, StandIn(name))
        for name in PACKAGES:  # to find one imports diffusers
            spec = importlib.util.find_spec(name)
            assert spec is not None, f"diffusers has no {name}"
            add(name, importlib.util.module_from_spec(spec))
        yield
    finally:
        for name, module in added.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
                parent, _, own = name.rpartition(".")
                if parent in sys.modules:
                    vars(sys.modules[parent]).pop(own, None)
