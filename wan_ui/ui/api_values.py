"""The values of a call of `generate`, and what each means where it is left out.

In the order of callers who send no names: the inputs of the usual task, with the settings between those that it
requires and the others, and what came later. Which a job cannot do without depends on its task; see queue/intake.py.
"""

import inspect
from typing import Any

from wan_ui.tasks import DEFAULT

REQUIRED = {entry.name: "" if entry.kind == "text" else None for entry in DEFAULT.inputs if entry.required}
SETTINGS = {"model": "", "scheme": "", "size": "auto", "frames": None, "steps": None, "seed": -1, "loras": ""}
OPTIONAL = {"audio": None}
SAMPLING = {"motion": "", "negative": None, "guidance": "", "shift": None, "solver": "", "cache": ""}
LATER = {
    "fps": None,
    "draft": False,
    **SAMPLING,
    "end_image": None,
    "task": "",
    "segments": "",
    "clip": None,
    "job": "",
    "pose_video": None,
    "performance": None,
    "face_video": None,
    "mask_video": None,
    "overlap": None,
    "clips": 1,
}
PARAMETERS: dict[str, Any] = {**REQUIRED, **SETTINGS, **OPTIONAL, **LATER}
SIGNATURE = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)
        for name, value in PARAMETERS.items()
    ]
)
