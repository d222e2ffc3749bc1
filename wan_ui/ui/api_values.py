"""The values of a call of `generate`, and what each means where it is left out.

In the order of callers who send no names: the inputs of the usual task, with the settings between those that it
requires and the others, and what came later. Which a job cannot do without depends on its task; see queue/intake.py.
"""

import inspect
from typing import Any

from wan_ui.tasks import DEFAULT, FORM

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
    "offload": "",
    "without_picture": False,
    "crop": "",
    "end_crop": "",
    "seconds": None,
}
# What is said of each to programs; of inputs it is what `--help` says.
WORDS = {
    **{entry.name: entry.help for entry in FORM},
    "model": "name in the catalog; empty: the default",
    "scheme": "quantisation of the weights; empty: the model's default",
    "size": "WIDTHxHEIGHT of the model's list, or auto: what fits the picture",
    "frames": "how many; null: the model's default",
    "steps": "of denoising; null: the model's default",
    "seed": "0 to 4294967295; -1 draws one",
    "loras": "one FILE:STRENGTH:TARGET a line, of the LoRA folder; target is high_noise, low_noise or both",
    "fps": "frames per second; null: the model's",
    "draft": "quicker and less exact, where the GPU has the means",
    "motion": "fast, more or full; empty: the first that the weights can",
    "negative": "what the clip is pushed away from; null is the official text, an empty one none",
    "guidance": "A, or A,B for the two experts",
    "shift": "of the schedule; null: the model's",
    "solver": "unipc, dpm++ or euler; empty: the model's",
    "cache": "magcache or teacache; empty: none",
    "task": "i2v, flf2v, t2v, s2v or animate; empty: what fits the model and what is given",
    "segments": "what happens next: one prompt a line, each a further segment",
    "job": "id of an ended job whose clip is gone on with",
    "clips": "how many of them, each with a seed of its own",
    "without_picture": "the video file does not carry the picture it was made of",
    "crop": "part of the picture: X,Y or X,Y,ZOOM, the centre as parts of width and height; empty: the middle",
    "end_crop": "the same of the picture that the clip ends at",
    "seconds": "how long, in place of frames: the nearest length that the model makes",
    "overlap": "frames that the segments of a performed clip share",
    "offload": "auto, none, text, model or block: where the weights are while a GPU makes the clip; empty: what fits",
}
PARAMETERS: dict[str, Any] = {**REQUIRED, **SETTINGS, **OPTIONAL, **LATER}
SIGNATURE = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)
        for name, value in PARAMETERS.items()
    ]
)
