"""diffusers' models, each imported without the hundred beside it: 2 s of every worker's start on a CPU.

`diffusers/models/transformers/__init__.py` imports every transformer that diffusers has, and so do its neighbours. In
`alone` these packages are there with their folders only, and a file in them loads itself and what it needs:

    with alone():
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

After it they are as if nobody had asked for them: who imports one then, as LightX2V may, gets the whole of it.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGES = ("diffusers.models.transformers", "diffusers.models.autoencoders", "diffusers.models.unets")


@contextmanager
def alone() -> Iterator[None]:
    bare = {}
    for name in PACKAGES:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            assert spec is not None, f"diffusers has no {name}"
            sys.modules[name] = bare[name] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        for name, module in bare.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
                vars(sys.modules["diffusers.models"]).pop(name.rpartition(".")[2], None)
