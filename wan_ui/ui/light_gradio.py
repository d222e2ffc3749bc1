"""Gradio, imported without the stub files (.pyi) that it makes for editors at every import: a third of a start.

For each component it parses the source and compares it with the file beside; only of a class that has no source,
which `inspect` tells, it leaves that. So for the time of the import no component has any.
"""

import inspect
import sys
from typing import Any
from unittest import mock

_getfile = inspect.getfile


def _no_source(thing: Any) -> str:
    if sys._getframe(1).f_code.co_name == "create_or_modify_pyi":
        raise OSError("no stub file is wanted")
    return _getfile(thing)


with mock.patch.object(inspect, "getfile", _no_source):
    import gradio  # noqa: F401
