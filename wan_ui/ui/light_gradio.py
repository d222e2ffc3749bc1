"""Gradio, imported without the stub files (.pyi) that it makes for editors at every import: a third of a start.

For each component it parses the source and compares it with the file beside; only of a class that has no source,
which `inspect` tells, it leaves that. So for the time of the import no component has any.
"""

import inspect
import sys

_getfile = inspect.getfile


def _no_source(thing: object) -> str:
    if sys._getframe(1).f_code.co_name == "create_or_modify_pyi":
        raise OSError("no stub file is wanted")
    return _getfile(thing)  # type: ignore[arg-type]


inspect.getfile = _no_source
try:
    import gradio  # noqa: F401
finally:
    inspect.getfile = _getfile
