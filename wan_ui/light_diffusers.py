"""diffusers' models, each imported without what it does not need: half of what a worker computes until it is there.

`diffusers/models/transformers/__init__.py` imports every transformer that diffusers has, and so do its neighbours. In
`alone` these packages are there with their folders only, and a file in them loads itself and what it needs:

    with alone():
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

Its files also import transformers and scipy, to read other people's files and for schedules of sigmas, and torch's
compiler, to mark what it shall not look into. In `alone` these are stand-ins: their names import the real ones when
they are used, and what the compiler is to mark is left unmarked, since nothing of diffusers is compiled here. A package
that wants more of them (peft, where it is installed) gets the real ones at once. After it all of them are as if nobody
had asked for them: who imports one then, as LightX2V may, gets the whole of it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType
from typing import Any

STAND_INS = (  # what diffusers itself imports
    *("transformers", "transformers.utils", "transformers.utils.quantization_config"),
    *("scipy", "scipy.stats", "scipy.integrate", "torch._dynamo"),
)
PACKAGES = ("diffusers.models.transformers", "diffusers.models.autoencoders", "diffusers.models.unets")


def unmarked(function: Any = None, *options: Any, **named: Any) -> Any:
    """A decorator, with arguments or without, that decorates nothing."""
    return unmarked if function is None else function


class Later:
    """A name of a module that is imported when the name is used."""

    def __init__(self, module: str, name: str):
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return getattr(real(module), name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real()(*arguments, **named)

    def __instancecheck__(self, one: Any) -> bool:
        return isinstance(one, self._real())

    def __mro_entries__(self, bases: Any) -> tuple[Any, ...]:
        return (self._real(),)

    def __or__(self, other: Any) -> Any:
        return self._real() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._real()


class StandIn(ModuleType):
    def __init__(self, name: str):
        super().__init__(name)
        self.__path__: list[str] = []  # it has other files, see More
        if "." not in name:
            self.__spec__ = importlib.util.find_spec(name)  # it is asked for, to see whether there is one

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ != "torch._dynamo":
            return Later(self.__name__, name)
        return unmarked if name in ("allow_in_graph", "disable") else getattr(real(self.__name__), name)


def real(name: str) -> ModuleType:
    """The module; no stand-in is in its place, nor in that of the others, which it uses."""
    for other in STAND_INS:
        if isinstance(sys.modules.get(other), StandIn):
            del sys.modules[other]
    return importlib.import_module(name)


class More:
    """Finds what is imported beside the stand-ins from the packages that they stand for."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        parent = name.rpartition(".")[0]
        if not isinstance(sys.modules.get(parent), StandIn):
            return None
        real(parent)
        return importlib.util.find_spec(name)


@contextmanager
def alone() -> Iterator[None]:
    added: dict[str, ModuleType] = {}

    def add(name: str, module: ModuleType) -> None:
        if name not in sys.modules:
            sys.modules[name] = added[name] = module

    sys.meta_path.insert(0, More)
    try:
        if "transformers" not in sys.modules:  # it uses the others itself
            for name in STAND_INS:
                add(name, StandIn(name))
        for name in PACKAGES:  # to find one imports diffusers
            spec = importlib.util.find_spec(name)
            assert spec is not None, f"diffusers has no {name}"
            add(name, importlib.util.module_from_spec(spec))
        yield
    finally:
        sys.meta_path.remove(More)
        for name, module in added.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
                parent, _, own = name.rpartition(".")
                if parent in sys.modules:
                    vars(sys.modules[parent]).pop(own, None)
