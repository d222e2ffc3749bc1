"""Large libraries are imported without looking for garbage meanwhile.

An import makes a million objects that stay, and to look through all of them again and again is a sixth of what the
engine's libraries take, a tenth of what the page's do.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
